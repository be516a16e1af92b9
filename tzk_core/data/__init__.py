"""Where observations come from: the data set protocol, data sets, and joining several of them into batches."""

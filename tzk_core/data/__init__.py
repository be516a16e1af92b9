"""Where observations come from: the data set protocol, data sets, and batches of several of them."""

"""Pages and pictures of a finished run: what is measured comes in as objects, and files go out."""

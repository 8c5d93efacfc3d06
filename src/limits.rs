//! Token buckets and strikes: how much of what one may do.

//! Everything in this process.

//! The Auth Service's key set.

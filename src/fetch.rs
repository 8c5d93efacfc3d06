//! An HTTP client for the Auth Service.

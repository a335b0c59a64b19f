//! What the integration tests are made of.

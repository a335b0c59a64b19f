//! Clients that take too long, and clients that vanish.

mod limits;
mod vanishing;

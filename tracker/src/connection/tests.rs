//! Control connections over real TLS: a raw client against a tracker on a free port.

mod admission;
mod client;
mod governing;
mod hostile;
mod members;
mod one_port;
mod sessions;
mod sharing;

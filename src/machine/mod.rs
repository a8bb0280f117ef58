//! Whole machines: what a configuration says, built and run.

pub mod config;

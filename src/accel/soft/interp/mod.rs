//! Decoding, blocks, and the integer instructions.

mod alu;
mod arithmetic;
mod bits;
mod branch;
mod cache;
mod careful;
mod data;
mod decimal;
mod decode;
mod flags;
mod hint;
mod lower;
mod operand;
mod port;
mod run;
mod shift;
mod stack;
mod string;
mod tracing;

#[cfg(test)]
mod tests;

pub use cache::Cache;
pub use lower::lower;

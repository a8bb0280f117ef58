#![doc = include_str!("ARCHITECTURE.md")]

// Layer 0: knows nothing of machines.
pub mod bits;
pub mod host;
pub mod json;
pub mod keyval;

// Layer 1: time and events, and what users make by `-object`.
pub mod event;
pub mod object;
pub mod trace;

// Layer 2: guest memory.
pub mod mem;

// Layer 3: devices and how they are wired.
pub mod bus;

// Layer 4: the outside world, and the architectural CPU.
pub mod block;
pub mod chardev;
pub mod cpu;
pub mod net;
pub mod ui;

// Layer 5: chips, accelerators, the image tools.
pub mod accel;
pub mod hw;
pub mod img;

// Layer 6: whole machines.
pub mod machine;

// Layer 7: what people and programs talk to.
pub mod monitor;
pub mod options;

// Layer 8: the debugger's server, which offers the monitor.
pub mod gdb;

// Layer 9: the process.
pub mod process;

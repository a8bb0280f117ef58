//! Time and readiness: the main loop's file descriptors, timers, posted calls, and the machine's clock.

mod clock;
mod main_loop;

pub use clock::{Clock, NS_PER_SEC, monotonic_ns, realtime_ns};
pub use main_loop::{ClockKind, EventLoop, Interest, LoopHandle, Ready, Timer, Watch};

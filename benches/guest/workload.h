#pragma once
#include <stdint.h>

/* Each returns a checksum of what it computed. */
uint64_t integer(unsigned scale);
uint64_t sha256(unsigned scale);
uint64_t zlib(unsigned scale);
uint64_t copy_memory(unsigned scale);
uint64_t rep_movs(unsigned scale);
uint64_t nbody(unsigned scale);
uint64_t linpack(unsigned scale);
uint64_t mandelbrot(unsigned scale);
uint64_t x87(unsigned scale);
uint64_t sse2(unsigned scale);
uint64_t avx2_fma(unsigned scale);
uint64_t interpreter(unsigned scale);
uint64_t calls(unsigned scale);
uint64_t syscalls(unsigned scale);
uint64_t pipe_one_cpu(unsigned scale);
uint64_t pipe_two_cpus(unsigned scale);
uint64_t page_faults(unsigned scale);
uint64_t fork_wait(unsigned scale);
uint64_t self_modifying(unsigned scale);

uint64_t mix(uint64_t sum, uint64_t value);
uint64_t mix_double(uint64_t sum, double value);
_Noreturn void fail(const char *what);

/* Workloads for processors: workloads NAME [SCALE] runs one and prints
 *	begin NAME
 *	end NAME CHECKSUM
 * The same binary runs on the host and in guests; the checksum depends on NAME and SCALE only. Each takes some tens of
 * milliseconds on a host at scale 1. What is measured lies between the two lines. */
#include "workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	uint64_t (*run)(unsigned scale);
} WORKLOADS[] = {
	{"integer", integer},
	{"sha256", sha256},
	{"zlib", zlib},
	{"memcpy", copy_memory},
	{"rep-movs", rep_movs},
	{"nbody", nbody},
	{"linpack", linpack},
	{"mandelbrot", mandelbrot},
	{"x87", x87},
	{"sse2", sse2},
	{"avx2-fma", avx2_fma},
	{"interpreter", interpreter},
	{"calls", calls},
	{"syscalls", syscalls},
	{"pipe-1cpu", pipe_one_cpu},
	{"pipe-2cpu", pipe_two_cpus},
	{"page-faults", page_faults},
	{"fork", fork_wait},
	{"self-modifying", self_modifying},
};

void fail(const char *what)
{
	perror(what);
	exit(1);
}

uint64_t mix(uint64_t sum, uint64_t value)
{
	return (sum ^ value) * 0x9e3779b97f4a7c15u + 0x1234567;
}

uint64_t mix_double(uint64_t sum, double value)
{
	uint64_t bits;
	memcpy(&bits, &value, sizeof bits);
	return mix(sum, bits);
}

int main(int argc, char **argv)
{
	unsigned scale = argc > 2 ? (unsigned)atoi(argv[2]) : 1;
	for (size_t i = 0; i < sizeof WORKLOADS / sizeof *WORKLOADS; i++) {
		if (argc < 2) {
			puts(WORKLOADS[i].name);
		} else if (!strcmp(argv[1], WORKLOADS[i].name)) {
			printf("begin %s\n", argv[1]);
			fflush(stdout);
			uint64_t sum = WORKLOADS[i].run(scale);
			printf("end %s %016llx\n", argv[1], (unsigned long long)sum);
			return 0;
		}
	}
	return argc < 2 ? 0 : 2;
}

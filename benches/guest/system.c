/* The kernel's work: system calls, pipes between processes on one and on two CPUs, new processes. */
#define _GNU_SOURCE
#include "workload.h"

#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t syscalls(unsigned scale)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < 200000 * scale; i++)
		sum = mix(sum, syscall(SYS_getppid) == 0 && syscall(SYS_getpgid, -1) == 0);
	return sum;
}

static void stay_on(int cpu)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof set, &set))
		fail("sched_setaffinity");
}

static uint64_t ping_pong(unsigned count, int cpu)
{
	int there[2], back[2];
	uint32_t ball = 1;
	if (pipe(there) || pipe(back))
		fail("pipe");
	pid_t child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		stay_on(cpu);
		for (unsigned i = 0; i < count; i++) {
			if (read(there[0], &ball, sizeof ball) != sizeof ball)
				_exit(1);
			ball = ball * 3 + 1;
			if (write(back[1], &ball, sizeof ball) != sizeof ball)
				_exit(1);
		}
		_exit(0);
	}
	stay_on(0);
	for (unsigned i = 0; i < count; i++)
		if (write(there[1], &ball, sizeof ball) != sizeof ball || read(back[0], &ball, sizeof ball) != sizeof ball)
			fail("pipe");
	int status;
	waitpid(child, &status, 0);
	return mix((uint64_t)status, ball);
}

uint64_t pipe_one_cpu(unsigned scale)
{
	return ping_pong(10000 * scale, 0);
}

uint64_t pipe_two_cpus(unsigned scale)
{
	return ping_pong(4000 * scale, 1);
}

uint64_t fork_wait(unsigned scale)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < 300 * scale; i++) {
		pid_t child = fork();
		if (child < 0)
			fail("fork");
		if (child == 0)
			_exit((int)(i & 0x7f));
		int status;
		waitpid(child, &status, 0);
		sum = mix(sum, (uint64_t)WEXITSTATUS(status));
	}
	return sum;
}

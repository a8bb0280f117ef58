/* Memory and code: bulk copies, first touches of pages, code that rewrites itself. */
#define _GNU_SOURCE
#include "workload.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint64_t copy_memory(unsigned scale)
{
	enum { LEN = 1 << 20 };
	static uint64_t from[LEN / 8], to[LEN / 8];
	uint64_t sum = 0;
	for (int i = 0; i < LEN / 8; i++)
		from[i] = (uint64_t)i * 0x9e3779b97f4a7c15u;
	/* Words one at a time, as compilers leave it where they cannot see a copy. */
	for (unsigned round = 0; round < 200 * scale; round++) {
		for (int i = 0; i < LEN / 8; i++) {
			to[i] = from[i] + round;
			__asm__ volatile("" ::: "memory");
		}
		sum = mix(sum, to[round % (LEN / 8)]);
	}
	return sum;
}

uint64_t rep_movs(unsigned scale)
{
	enum { LEN = 1 << 20 };
	static uint8_t from[LEN], to[LEN];
	uint64_t sum = 0;
	for (unsigned round = 0; round < 500 * scale; round++) {
		void *source = from + round % 64, *target = to + round % 32;
		size_t count = LEN - 64;
		from[round] ^= (uint8_t)round;
		__asm__ volatile("rep movsb" : "+S"(source), "+D"(target), "+c"(count)::"memory");
		sum = mix(sum, to[round]);
	}
	return sum;
}

uint64_t page_faults(unsigned scale)
{
	enum { LEN = 8 << 20 };
	uint64_t sum = 0;
	for (unsigned round = 0; round < 8 * scale; round++) {
		uint8_t *area = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (area == MAP_FAILED)
			fail("mmap");
		madvise(area, LEN, MADV_NOHUGEPAGE);
		for (size_t at = 0; at < LEN; at += 4096)
			area[at] = (uint8_t)(at >> 12) + 1;
		for (size_t at = 0; at < LEN; at += 4096)
			sum = mix(sum, area[at]);
		munmap(area, LEN);
	}
	return sum;
}

/* mov eax, N; add eax, edi; ret: N is rewritten before each call, and each tenth time the whole function. */
uint64_t self_modifying(unsigned scale)
{
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (code == MAP_FAILED)
		fail("mmap");
	static const uint8_t body[] = {0xb8, 0, 0, 0, 0, 0x01, 0xf8, 0xc3};
	memcpy(code, body, sizeof body);
	uint32_t (*function)(uint32_t) = (uint32_t (*)(uint32_t))(uintptr_t)code;
	uint64_t sum = 0;
	uint32_t x = 1;
	for (unsigned i = 0; i < 50000 * scale; i++) {
		if (i % 10 == 0)
			memcpy(code, body, sizeof body);
		memcpy(code + 1, &i, 4);
		__asm__ volatile("" ::: "memory");
		x = function(x);
		sum = mix(sum, x);
	}
	munmap(code, 4096);
	return sum;
}

/* Integers: lists, sorting and state machines (as CoreMark mixes them), SHA-256, zlib, a bytecode interpreter, calls. */
#include "workload.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static uint32_t xorshift(uint32_t *state)
{
	uint32_t x = *state;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return *state = x;
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static uint16_t crc16(uint16_t crc, uint32_t value)
{
	for (int bit = 0; bit < 32; bit++, value >>= 1)
		crc = (crc >> 1) ^ (((crc ^ value) & 1) ? 0xa001 : 0);
	return crc;
}

uint64_t integer(unsigned scale)
{
	static uint32_t numbers[4096];
	uint32_t state = 1;
	uint64_t sum = 0;
	for (unsigned round = 0; round < 80 * scale; round++) {
		uint16_t crc = 0xffff;
		for (int i = 0; i < 4096; i++)
			numbers[i] = xorshift(&state);
		qsort(numbers, 4096, sizeof *numbers, compare);
		for (int i = 0; i < 4096; i++) {
			switch (numbers[i] % 7) {
			case 0: crc = crc16(crc, numbers[i]); break;
			case 1: crc += numbers[i] / (1 + (numbers[i] & 15)); break;
			case 2: crc ^= numbers[i] % 1000; break;
			case 3: crc = (uint16_t)(crc << 3 | crc >> 13); break;
			default: crc += i * 17; break;
			}
		}
		sum = mix(sum, crc);
	}
	return sum;
}

static uint32_t ror(uint32_t x, int n)
{
	return x >> n | x << (32 - n);
}

/* The first 32 bits of the fractional parts of the cube and square roots of the first primes (FIPS 180-4, 4.2.2 and 5.3.3). */
static void constants(uint32_t *k, uint32_t *h)
{
	int count = 0;
	for (unsigned n = 2; count < 64; n++) {
		int prime = 1;
		for (unsigned d = 2; d * d <= n; d++)
			prime &= n % d != 0;
		if (!prime)
			continue;
		/* The largest numbers of 1/2^32 whose cube and square are at most n, by bits. */
		unsigned __int128 cube = 0, square = 0, limit = n;
		for (unsigned __int128 bit = (unsigned __int128)1 << 36; bit; bit >>= 1) {
			unsigned __int128 x = cube | bit;
			if (x * x * x <= limit << 96)
				cube = x;
			x = square | bit;
			if (x * x <= limit << 64)
				square = x;
		}
		k[count] = (uint32_t)cube;
		if (count < 8)
			h[count] = (uint32_t)square;
		count++;
	}
}

static void sha256_block(uint32_t *h, const uint32_t *k, const uint32_t *block)
{
	uint32_t w[64], v[8];
	memcpy(w, block, 64);
	for (int i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];
		w[i] = w[i - 16] + w[i - 7] + (ror(a, 7) ^ ror(a, 18) ^ a >> 3) + (ror(b, 17) ^ ror(b, 19) ^ b >> 10);
	}
	memcpy(v, h, 32);
	for (int i = 0; i < 64; i++) {
		uint32_t a = v[0], e = v[4];
		uint32_t t1 = v[7] + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + k[i] + w[i];
		uint32_t t2 = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
		memmove(v + 1, v, 28);
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (int i = 0; i < 8; i++)
		h[i] += v[i];
}

uint64_t sha256(unsigned scale)
{
	uint32_t k[64], h[8], block[16], state = 7;
	constants(k, h);
	for (unsigned i = 0; i < 100000 * scale; i++) {
		for (int word = 0; word < 16; word++)
			block[word] = xorshift(&state);
		sha256_block(h, k, block);
	}
	uint64_t sum = 0;
	for (int i = 0; i < 8; i++)
		sum = mix(sum, h[i]);
	return sum;
}

uint64_t zlib(unsigned scale)
{
	enum { LEN = 1 << 19 };
	uint8_t *plain = malloc(LEN), *packed = malloc(LEN * 2), *back = malloc(LEN);
	uint64_t sum = 0;
	uint32_t state = 3;
	for (unsigned round = 0; round < 2 * scale; round++) {
		/* Words from a small vocabulary: text compresses about as well. */
		for (int i = 0; i < LEN; i++)
			plain[i] = (uint8_t)("the quick brown fox jumps over a lazy dog; "[(i + (xorshift(&state) & 1) * 5) % 43]);
		uLongf packed_len = LEN * 2, len = LEN;
		if (compress2(packed, &packed_len, plain, LEN, 6) || uncompress(back, &len, packed, packed_len))
			fail("zlib");
		sum = mix(mix(sum, packed_len), crc32(0, back, (uInt)len));
	}
	return sum;
}

/* A stack machine that runs a sieve. */
enum op { PUSH, LOAD, STORE, GET, PUT, ADD, LESS, JUMP_UNLESS, JUMP, HALT };

uint64_t interpreter(unsigned scale)
{
	enum { SIZE = 8192 };
	static uint8_t sieve[SIZE];
	/* i = 2; while (i < SIZE) { if (!sieve[i]) { j = i + i; while (j < SIZE) { sieve[j] = 1; j += i; } n += i; } i++; } */
	static const int32_t code[] = {
		PUSH, 2, STORE, 0,
		/* 4 */ LOAD, 0, PUSH, SIZE, LESS, JUMP_UNLESS, 54,
		/* 11 */ LOAD, 0, GET, PUSH, 1, LESS, JUMP_UNLESS, 45,
		LOAD, 0, LOAD, 0, ADD, STORE, 1,
		/* 26 */ LOAD, 1, PUSH, SIZE, LESS, JUMP_UNLESS, 45,
		LOAD, 1, PUT, LOAD, 1, LOAD, 0, ADD, STORE, 1, JUMP, 26,
		/* 45 */ LOAD, 0, PUSH, 1, ADD, STORE, 0, JUMP, 4,
		/* 54 */ HALT,
	};
	uint64_t sum = 0;
	for (unsigned round = 0; round < 60 * scale; round++) {
		int32_t stack[16], vars[4] = {0}, *top = stack;
		const int32_t *pc = code;
		uint64_t steps = 0;
		memset(sieve, 0, SIZE);
		for (;; steps++) {
			switch (*pc++) {
			case PUSH: *top++ = *pc++; continue;
			case LOAD: *top++ = vars[*pc++]; continue;
			case STORE: vars[*pc++] = *--top; continue;
			case GET: top[-1] = sieve[top[-1]]; continue;
			case PUT: sieve[*--top] = 1; continue;
			case ADD: top--; top[-1] += top[0]; continue;
			case LESS: top--; top[-1] = top[-1] < top[0]; continue;
			case JUMP_UNLESS: pc = *--top ? pc + 1 : code + *pc; continue;
			case JUMP: pc = code + *pc; continue;
			}
			break;
		}
		for (int i = 2; i < SIZE; i++)
			sum += sieve[i] ? 0 : (uint64_t)i;
		sum = mix(sum, steps);
	}
	return sum;
}

static __attribute__((noinline)) uint32_t fibonacci(uint32_t n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

static __attribute__((noinline)) uint32_t add1(uint32_t x) { return x + 1; }
static __attribute__((noinline)) uint32_t times3(uint32_t x) { return x * 3; }
static __attribute__((noinline)) uint32_t rotate(uint32_t x) { return ror(x, 5); }
static __attribute__((noinline)) uint32_t flip(uint32_t x) { return ~x; }

uint64_t calls(unsigned scale)
{
	uint32_t (*volatile table[4])(uint32_t) = {add1, times3, rotate, flip};
	uint64_t sum = 0;
	uint32_t state = 5, x = 0;
	for (unsigned round = 0; round < scale; round++) {
		sum = mix(sum, fibonacci(31));
		for (int i = 0; i < 3000000; i++)
			x = table[xorshift(&state) & 3](x);
		sum = mix(sum, x);
	}
	return sum;
}

/* Vectors: SSE2 integers, AVX2 with FMA. */
#include "workload.h"

#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>

uint64_t sse2(unsigned scale)
{
	enum { LEN = 4096 };
	static uint8_t a[LEN], b[LEN];
	for (int i = 0; i < LEN; i++) {
		a[i] = (uint8_t)(i * 7);
		b[i] = (uint8_t)(i * 13 + 5);
	}
	__m128i difference = _mm_setzero_si128(), product = _mm_setzero_si128();
	for (unsigned round = 0; round < 40000 * scale; round++)
		for (int i = 0; i < LEN; i += 64)
			for (int j = 0; j < 64; j += 16) {
				__m128i x = _mm_loadu_si128((const __m128i *)(a + i + j));
				__m128i y = _mm_loadu_si128((const __m128i *)(b + i + j));
				y = _mm_add_epi8(y, _mm_set1_epi8((char)round));
				difference = _mm_add_epi64(difference, _mm_sad_epu8(x, y));
				product = _mm_add_epi32(product, _mm_madd_epi16(_mm_unpacklo_epi8(x, y), _mm_unpackhi_epi8(x, y)));
			}
	uint64_t out[4];
	_mm_storeu_si128((__m128i *)out, difference);
	_mm_storeu_si128((__m128i *)(out + 2), product);
	return mix(mix(mix(mix(0, out[0]), out[1]), out[2]), out[3]);
}

__attribute__((target("avx2,fma"))) static uint64_t polynomial(unsigned scale)
{
	enum { LEN = 2048 };
	static double x[LEN];
	static int32_t n[LEN];
	for (int i = 0; i < LEN; i++) {
		x[i] = i / 4096.0;
		n[i] = i * 77;
	}
	__m256d total = _mm256_setzero_pd();
	__m256i integers = _mm256_setzero_si256();
	for (unsigned round = 0; round < 4000 * scale; round++)
		for (int i = 0; i < LEN; i += 8) {
			__m256d v = _mm256_loadu_pd(x + i), w = _mm256_loadu_pd(x + i + 4);
			__m256d p = _mm256_fmadd_pd(v, w, _mm256_set1_pd(round * 1e-3));
			p = _mm256_fnmadd_pd(p, v, _mm256_set1_pd(0.25));
			total = _mm256_fmadd_pd(p, _mm256_set1_pd(0.5), _mm256_mul_pd(total, _mm256_set1_pd(0.999)));
			__m256i k = _mm256_loadu_si256((const __m256i *)(n + i));
			integers = _mm256_add_epi32(integers, _mm256_mullo_epi32(k, _mm256_srlv_epi32(k, _mm256_set1_epi32(3))));
		}
	double sums[4];
	uint64_t words[4], sum = 0;
	_mm256_storeu_pd(sums, total);
	_mm256_storeu_si256((__m256i *)words, integers);
	for (int i = 0; i < 4; i++)
		sum = mix(mix_double(sum, sums[i]), words[i]);
	return sum;
}

uint64_t avx2_fma(unsigned scale)
{
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
		puts("missing avx2-fma");
		exit(3);
	}
	return polynomial(scale);
}

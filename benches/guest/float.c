/* Floating point: planets (nbody), linear equations (linpack), the Mandelbrot set, and x87's 80 bits. */
#include "workload.h"

#include <emmintrin.h>

static double root(double x)
{
	__m128d v = _mm_set_sd(x);
	return _mm_cvtsd_f64(_mm_sqrt_sd(v, v));
}

uint64_t nbody(unsigned scale)
{
	enum { N = 5 };
	double p[N][3] = {{0, 0, 0}, {4.84, -1.16, -0.10}, {8.34, 4.12, -0.40}, {12.89, -15.11, -0.22}, {15.37, -25.91, 0.17}};
	double v[N][3] = {{0, 0, 0}, {0.60, 2.81, -0.02}, {-1.01, 1.82, 0.008}, {1.08, 0.86, -0.01}, {0.97, 0.59, -0.03}};
	static const double mass[N] = {39.47, 0.037, 0.011, 0.0017, 0.0020};
	for (unsigned step = 0; step < 400000 * scale; step++) {
		for (int i = 0; i < N; i++) {
			for (int j = i + 1; j < N; j++) {
				double d[3], square = 0;
				for (int k = 0; k < 3; k++) {
					d[k] = p[i][k] - p[j][k];
					square += d[k] * d[k];
				}
				double magnitude = 0.001 / (square * root(square));
				for (int k = 0; k < 3; k++) {
					v[i][k] -= d[k] * mass[j] * magnitude;
					v[j][k] += d[k] * mass[i] * magnitude;
				}
			}
		}
		for (int i = 0; i < N; i++)
			for (int k = 0; k < 3; k++)
				p[i][k] += 0.001 * v[i][k];
	}
	uint64_t sum = 0;
	for (int i = 0; i < N; i++)
		for (int k = 0; k < 3; k++)
			sum = mix_double(sum, p[i][k]);
	return sum;
}

uint64_t linpack(unsigned scale)
{
	enum { N = 160 };
	static double a[N][N + 1];
	uint64_t sum = 0;
	for (unsigned round = 0; round < 24 * scale; round++) {
		uint32_t state = round + 1;
		for (int i = 0; i < N; i++)
			for (int j = 0; j <= N; j++) {
				state = state * 1664525 + 1013904223;
				a[i][j] = (double)(state >> 8) / (1 << 24) - 0.5 + (i == j) * 4;
			}
		for (int i = 0; i < N; i++)
			for (int row = i + 1; row < N; row++) {
				double factor = a[row][i] / a[i][i];
				for (int j = i; j <= N; j++)
					a[row][j] -= factor * a[i][j];
			}
		for (int i = N - 1; i >= 0; i--) {
			for (int j = i + 1; j < N; j++)
				a[i][N] -= a[i][j] * a[j][N];
			a[i][N] /= a[i][i];
			sum = mix_double(sum, a[i][N]);
		}
	}
	return sum;
}

uint64_t mandelbrot(unsigned scale)
{
	enum { SIZE = 200 };
	uint64_t sum = 0;
	for (unsigned round = 0; round < 3 * scale; round++)
		for (int y = 0; y < SIZE; y++)
			for (int x = 0; x < SIZE; x++) {
				double cr = 3.0 * x / SIZE - 2.25, ci = 2.5 * y / SIZE - 1.25, zr = 0, zi = 0;
				unsigned n = 0;
				while (n < 200 && zr * zr + zi * zi < 4) {
					double next = zr * zr - zi * zi + cr;
					zi = 2 * zr * zi + ci;
					zr = next;
					n++;
				}
				sum = mix(sum, n);
			}
	return sum;
}

uint64_t x87(unsigned scale)
{
	long double x = 0.5L, total = 0;
	for (unsigned i = 1; i < 1200000 * scale; i++) {
		long double n = (long double)i;
		__asm__("fsqrt" : "+t"(n));
		x = 3.7L * x * (1 - x);
		total += x / n + (long double)(int)(x * 1000) * 1e-6L;
	}
	return mix_double(mix_double(0, (double)total), (double)x);
}

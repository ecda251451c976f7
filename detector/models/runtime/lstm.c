/* The LSTM autoencoder as one function, from windows to their reconstruction. See compiled.py.

   It does less than a general runtime has to: what the second layer is given is the same at all rows of a window, so
   the product with it is made once a window and not a hundred times.

   A window's bits depend on no neighbour. Each gate and each value is a sum of fused products in one order, whether a
   window shares vectors with others (`many`) or has them for itself (`one`). The width of the vectors changes no bit
   either, nor does the compiler.

   It is built without options of the processor at hand. Functions name the instructions they use, and `lstm_lanes` says
   which of them a processor has. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A layer's weights, by what adds to the gates input, forget, cell, output: `by_unit` (units, inputs, 4) for `many`;
   `by_pair` (padded / (PAIR x lanes), inputs, 4, PAIR x lanes) for `one`. `bias` (4, padded). */
typedef struct {
    int64_t inputs;
    const float *by_unit, *by_pair, *bias;
} Layer;

/* `first` reads a row's channels and its own state. `code` makes of the last of its states what the second layer is
   given at every row; `second` adds what that layer reads of its own state, and has no bias. `values` (channels, units)
   and `values_bias` make a row of each of its states. `padded`: units, with zeros up to a multiple of PAIR x lanes.

   Powers of 2 that would have to be multiplied with are in the weights, which changes no bit: sigmoid(x) is
   (1 + tanh(x / 2)) / 2, so the sums of the gates input, forget and output come halved, and those of values that a
   sigmoid follows; a state is held doubled, so weights of states are halved. */
typedef struct {
    int64_t units, padded, channels, rows, activation;
    Layer first, code, second;
    const float *values, *values_bias;
} Model;

enum { LINEAR, SIGMOID, TANH };

#define PAIR 2 /* vectors of units that `one` has in hand: enough sums to keep a processor busy */

/* tanh(x) is x P(x^2) / Q(x^2), whose highest coefficient is 1, within 4e-8 up to LIMIT, where it is 1 - 2e-7: the best
   quotient of these degrees. */
#define LIMIT 8.0f
static const float P[] = {1182924.0f, 158963.562f, 4216.12158f, 25.7560253f, 0.0178168789f};
static const float Q[] = {1182924.0f, 553271.438f, 30916.9062f, 402.096405f};

/* For each kind of vectors: BLOCK vectors of windows are dealt with together, such that the sums of a unit's gates fill
   the registers. From WORTH windows on that is quicker than one by one. */
#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,fma")))
#define NAME(function) function##_8
#define V __m256
#define LANES 8
#define BLOCK 3
#define WORTH 16
#define SPLAT _mm256_set1_ps
#define FMA _mm256_fmadd_ps
#define MIN _mm256_min_ps
#define MAX _mm256_max_ps
#define LOAD _mm256_loadu_ps
#define STORE _mm256_storeu_ps
#include "lstm_lanes.h"

#define TARGET __attribute__((target("avx512f,fma")))
#define NAME(function) function##_16
#define V __m512
#define LANES 16
#define BLOCK 4
#define WORTH 40
#define SPLAT _mm512_set1_ps
#define FMA _mm512_fmadd_ps
#define MIN _mm512_min_ps
#define MAX _mm512_max_ps
#define LOAD _mm512_loadu_ps
#define STORE _mm512_storeu_ps
#include "lstm_lanes.h"

#elif defined(__aarch64__)

#include <arm_neon.h>

#define TARGET
#define NAME(function) function##_4
#define V float32x4_t
#define LANES 4
#define BLOCK 5
#define WORTH 12
#define SPLAT vdupq_n_f32
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define MIN vminq_f32
#define MAX vmaxq_f32
#define LOAD vld1q_f32
#define STORE vst1q_f32
#include "lstm_lanes.h"

#endif

/* The widest vectors, in lanes, of at most `limit`, that this processor has; 0: none that will do. */
int64_t lstm_lanes(int64_t limit) {
#if defined(__x86_64__)
    /* Asked of the processor itself: what __builtin_cpu_supports says depends on the compiler's library. */
    uint32_t a, b, c, d, kept;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (!(c & bit_FMA) || !(c & bit_OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    __asm__("xgetbv" : "=a"(kept), "=d"(d) : "c"(0)); /* the registers that the system keeps for a process */
    if (limit >= 16 && (b & bit_AVX512F) && (kept & 0xe6) == 0xe6) return 16;
    if (limit >= 8 && (b & bit_AVX2) && (kept & 0x06) == 0x06) return 8;
#elif defined(__aarch64__)
    if (limit >= 4) return 4;
#endif
    (void)limit;
    return 0;
}

/* Makes of `windows` (n, rows, channels) what is `rebuilt` of them, with vectors of so many lanes. 0: no memory. */
int64_t lstm_rebuild(int64_t lanes, const Model *model, int64_t n, const float *windows, float *rebuilt) {
#if defined(__x86_64__)
    if (lanes == 16) return rebuild_16(model, n, windows, rebuilt);
    if (lanes == 8) return rebuild_8(model, n, windows, rebuilt);
#elif defined(__aarch64__)
    if (lanes == 4) return rebuild_4(model, n, windows, rebuilt);
#endif
    (void)model, (void)n, (void)windows, (void)rebuilt;
    return 0;
}

const char *kernel_digest(void) { return KERNEL_DIGEST; }

/* The hand-written bound for `lightkeep.analysis.xpcs`: same blocking, same sums, GCC vectors of 8 float.
   Multi-tau (aps, 4 delays per level) of uint8 frames to the sums per partition of G2, IP, IF, g and g*g.
   It makes no intensity, no segments and no image, which ours does besides. */
#ifdef __AVX2__
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#define L 8
#define CHUNK 512
#define TILE 256
#define CELLS (TILE / L)
#define MAXLEVEL 24
typedef float vf __attribute__((vector_size(32), aligned(4)));
typedef double vd __attribute__((vector_size(64), aligned(8)));
typedef int64_t vl __attribute__((vector_size(64), aligned(8)));

static inline vf as_floats(const uint8_t *p) { /* gcc 12 makes 2 x slower code of __builtin_convertvector here */
#ifdef __AVX2__
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
#else
    vf x;
    for (int j = 0; j < L; j++) x[j] = p[j];
    return x;
#endif
}

typedef struct { vd low[4], acc[MAXLEVEL][4], total; vf history[MAXLEVEL][8], head[MAXLEVEL][8]; } State;

static void first_level(const vf *x, int n, vf *y, vd *low, vd *high) {
    vf a[9] = {{0}};
    for (int t = 0; t < n; t += 4) {
        const vf *p = x + t;
        vf x0 = p[0], x1 = p[1], x2 = p[2], x3 = p[3], h;
        y[t / 2] = x0 + x1; y[t / 2 + 1] = x2 + x3;
        h = p[-8]; a[8] += x0 * h;
        h = p[-7]; a[7] += x0 * h; a[8] += x1 * h;
        h = p[-6]; a[6] += x0 * h; a[7] += x1 * h; a[8] += x2 * h;
        h = p[-5]; a[5] += x0 * h; a[6] += x1 * h; a[7] += x2 * h; a[8] += x3 * h;
        h = p[-4]; a[4] += x0 * h; a[5] += x1 * h; a[6] += x2 * h; a[7] += x3 * h;
        h = p[-3]; a[3] += x0 * h; a[4] += x1 * h; a[5] += x2 * h; a[6] += x3 * h;
        h = p[-2]; a[2] += x0 * h; a[3] += x1 * h; a[4] += x2 * h; a[5] += x3 * h;
        h = p[-1]; a[1] += x0 * h; a[2] += x1 * h; a[3] += x2 * h; a[4] += x3 * h;
        a[1] += x1 * x0; a[2] += x2 * x0; a[3] += x3 * x0;
        a[1] += x2 * x1; a[2] += x3 * x1;
        a[1] += x3 * x2;
    }
    for (int k = 0; k < 4; k++) {
        low[k] += __builtin_convertvector(a[k + 1], vd);
        high[k] += __builtin_convertvector(a[k + 5], vd);
    }
}

static void upper_level(const vf *x, int n, vf *y, vd *acc) {
    vf a[5] = {{0}}, b[5] = {{0}};
    for (int t = 0; t < n; t += 4) {
        const vf *p = x + t, *e = p - 4;
        vf x0 = p[0], x1 = p[1], x2 = p[2], x3 = p[3], h;
        y[t / 2] = x0 + x1; y[t / 2 + 1] = x2 + x3;
        h = e[-4]; a[4] += x0 * h;
        h = e[-3]; a[3] += x0 * h; b[4] += x1 * h;
        h = e[-2]; a[2] += x0 * h; b[3] += x1 * h; a[4] += x2 * h;
        h = e[-1]; a[1] += x0 * h; b[2] += x1 * h; a[3] += x2 * h; b[4] += x3 * h;
        h = e[0]; b[1] += x1 * h; a[2] += x2 * h; b[3] += x3 * h;
        h = e[1]; a[1] += x2 * h; b[2] += x3 * h;
        h = e[2]; b[1] += x3 * h;
    }
    for (int k = 0; k < 4; k++) acc[k] += __builtin_convertvector(a[k + 1] + b[k + 1], vd);
}

static void cell(State *s, vf *x, vf *y, int n, int chunk) {
    long start = (long)chunk * CHUNK;
    for (int l = 0; n > 0 && l < MAXLEVEL; l++) {
        memset(x + n, 0, 4 * sizeof(vf));
        memcpy(x - 8, s->history[l], sizeof s->history[l]);
        if (l == 0) first_level(x, (n + 3) & ~3, y, s->low, s->acc[0]);
        else upper_level(x, (n + 3) & ~3, y, s->acc[l]);
        memcpy(s->history[l], x + n - 8, sizeof s->history[l]);
        for (long t = start; t < 8 && t < start + n; t++) s->head[l][t] = x[t - start];
        int odd = start & 1;
        if (odd) for (int t = 0; t < (n + 1) / 2; t++) y[t] = x[2 * t - 1] + x[2 * t];
        n = (n + odd) / 2;
        start /= 2;
        vf *z = x; x = y; y = z;
    }
}

/* Sums of a cell's pixels into the rows of their labels; out: (labels, 5, taus). */
static void finish(State *s, const int32_t *label, long count, const long *tau, long taus, double *pixel, double *out) {
    vd total = s->total, tail = {0}, head = {0}, one = {0};
    one += 1;
    long level = 0, lag = 0;
    for (long d = 0; d < taus; d++) {
        long want = tau[3 * d], k = tau[3 * d + 1];
        for (; level < want; level++, lag = 0, tail -= tail, head -= head)
            if ((count >> level) & 1) total -= __builtin_convertvector(s->history[level][7], vd);
        for (; lag < k; lag++) {
            tail += __builtin_convertvector(s->history[level][7 - lag], vd);
            head += __builtin_convertvector(s->head[level][lag], vd);
        }
        vd G2 = level == 0 && k <= 4 ? s->low[k - 1] : s->acc[level][k - 5];
        vd IP = total - tail, IF = total - head, below = IP * IF;
        vl counts = below > 0;
        vd g = G2 * (double)tau[3 * d + 2] / (vd)(((vl)below & counts) | ((vl)one & ~counts));
        g = (vd)((vl)g & counts);
        vd rows[5] = {G2, IP, IF, g, g * g};
        for (int j = 0; j < L; j++)
            for (int k = 0; k < 5; k++) pixel[(j * 5 + k) * taus + d] = rows[k][j];
    }
    for (int j = 0; j < L; j++) {
        if (label[j] < 0) continue;
        double *to = out + label[j] * 5 * taus, *from = pixel + j * 5 * taus;
        for (long i = 0; i < 5 * taus; i++) to[i] += from[i];
    }
}

static void begin(State *s, int levels) {
    memset(s->acc, 0, levels * sizeof s->acc[0]);
    memset(s->history, 0, levels * sizeof s->history[0]);
    memset(s->head, 0, levels * sizeof s->head[0]);
    memset(s->low, 0, sizeof s->low);
    memset(&s->total, 0, sizeof s->total);
}

/* label: (pixels,) from 0, -1: unused. tau: (taus, 3) level, lag, pairs. pixel: room for 40 * taus numbers. */
void multitau(const uint8_t *frames, long count, long pixels, const int32_t *label, const long *tau, long taus,
              long first, long last, double *pixel_room, double *out) {
    static __thread uint8_t tiles[CELLS][CHUNK * L + 64];
    static __thread State state[CELLS];
    static __thread vf ab[2][CHUNK + 16];
    uint8_t (*tile)[CHUNK * L + 64] = tiles;
    State *states = state;
    vf *a = ab[0], *b = ab[1];
    int levels = 1;
    while (count >> levels) levels++;
    for (long pixel = first; pixel < last; pixel += TILE) {
        for (int i = 0; i < CELLS; i++) begin(states + i, levels);
        for (long c = 0; c * CHUNK < count; c++) {
            int n = count - c * CHUNK < CHUNK ? count - c * CHUNK : CHUNK;
            for (int t = 0; t < n; t++) {
                const uint8_t *row = frames + (c * CHUNK + t) * pixels + pixel;
                for (int i = 0; i < TILE; i += 64) __builtin_prefetch(row + 8 * pixels + i);
                for (int i = 0; i < CELLS; i++) memcpy(tile[i] + t * L, row + i * L, L);
            }
            for (int i = 0; i < CELLS; i++) {
                int used = 0;
                for (int j = 0; j < L; j++) used |= label[pixel + i * L + j] >= 0;
                if (!used) continue;
                vf sum = {0}, *x = a + 8;
                for (int t = 0; t < n; t++) {
                    x[t] = as_floats(tile[i] + t * L);
                    sum += x[t];
                }
                states[i].total += __builtin_convertvector(sum, vd);
                cell(&states[i], x, b + 8, n, c);
            }
        }
        for (int i = 0; i < CELLS; i++) {
            int used = 0;
            for (int j = 0; j < L; j++) used |= label[pixel + i * L + j] >= 0;
            if (used) finish(&states[i], label + pixel + i * L, count, tau, taus, pixel_room, out);
        }
    }
}

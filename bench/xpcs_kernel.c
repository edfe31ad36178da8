/* The hand-written bound for `lightkeep.analysis.xpcs`: same blocking, same sums, GCC vectors of 8 float.
   Multi-tau (aps, 4 delays per level) of uint8 frames to the sums per partition of G2, IP, IF, g and g*g.
   It makes no intensity, no segments and no image, which ours does besides. */
#include <stdint.h>
#include <string.h>

#define L 8
#define CHUNK 512
#define TILE 256
#define CELLS (TILE / L)
#define MAXLEVEL 24
typedef float vf __attribute__((vector_size(32), aligned(4)));
typedef double vd __attribute__((vector_size(64), aligned(8)));

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

/* out: (labels, 5, taus) sums. label: (pixels,) from 0, -1: unused. tau: (taus, 3) level, lag, pairs. */
void multitau(const uint8_t *frames, long count, long pixels, const int32_t *label, const long *tau, long taus,
              long first, long last, double *out) {
    static __thread uint8_t tile[CELLS][CHUNK * L + 64];
    static __thread State states[CELLS];
    static __thread vf a[CHUNK + 16], b[CHUNK + 16];
    for (long pixel = first; pixel < last; pixel += TILE) {
        memset(states, 0, sizeof states);
        for (long c = 0; c * CHUNK < count; c++) {
            int n = count - c * CHUNK < CHUNK ? count - c * CHUNK : CHUNK;
            for (int t = 0; t < n; t++) {
                const uint8_t *row = frames + (c * CHUNK + t) * pixels + pixel;
                for (int i = 0; i < CELLS; i++) memcpy(tile[i] + t * L, row + i * L, L);
            }
            for (int i = 0; i < CELLS; i++) {
                int used = 0;
                for (int j = 0; j < L; j++) used |= label[pixel + i * L + j] >= 0;
                if (!used) continue;
                vf sum = {0}, *x = a + 8;
                for (int t = 0; t < n; t++) {
                    for (int j = 0; j < L; j++) x[t][j] = tile[i][t * L + j];
                    sum += x[t];
                }
                states[i].total += __builtin_convertvector(sum, vd);
                cell(&states[i], x, b + 8, n, c);
            }
        }
        for (int i = 0; i < CELLS; i++) for (int j = 0; j < L; j++) {
            long to = label[pixel + i * L + j];
            if (to < 0) continue;
            State *s = &states[i];
            double total = s->total[j], tail = 0, head = 0;
            long level = 0, lag = 0;
            for (long d = 0; d < taus; d++) {
                long want = tau[3 * d], k = tau[3 * d + 1];
                for (; level < want; level++, lag = 0, tail = head = 0)
                    if ((count >> level) & 1) total -= s->history[level][7][j];
                for (; lag < k; lag++) { tail += s->history[level][7 - lag][j]; head += s->head[level][lag][j]; }
                double G2 = level == 0 && k <= 4 ? s->low[k - 1][j] : s->acc[level][k - 5][j];
                double IP = total - tail, IF = total - head, below = IP * IF;
                double g = below > 0 ? G2 * tau[3 * d + 2] / below : 0, *row = out + to * 5 * taus + d;
                row[0] += G2; row[taus] += IP; row[2 * taus] += IF; row[3 * taus] += g; row[4 * taus] += g * g;
            }
        }
    }
}

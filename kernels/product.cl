/* Product of dense matrices by tiles in local memory: C = alpha A B + beta C, C in C's order.
 *
 * A group of GROUP_M times GROUP_N work items makes a tile of C, each item ROWS rows of one vector of WIDTH columns.
 * DEPTH columns of A and rows of B lie in local memory at a time, with zeros beyond the edges. REAL is float or double.
 * Each element adds its products in their order, one after another, wherever it lies. */
#define JOIN(a, b) a##b
#define OF(type, width) JOIN(type, width)
#define VECTOR OF(REAL, WIDTH)
#define TILE_M (GROUP_M * ROWS)
#define TILE_N (GROUP_N * WIDTH)

/* a_ij is a[i * a_row + j * a_column], and so is b. */
kernel void product(global const REAL *restrict a, long a_row, long a_column, global const REAL *restrict b, long b_row,
                    long b_column, global REAL *restrict c, long m, long n, long k, REAL alpha, REAL beta)
{
    local REAL left[DEPTH * TILE_M], right[DEPTH * TILE_N];
    const int x = get_local_id(0), y = get_local_id(1), item = y * GROUP_N + x;
    const long row = get_group_id(1) * (long)TILE_M, column = get_group_id(0) * (long)TILE_N;
    VECTOR sum[ROWS];
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0;
    for (long first = 0; first < k; first += DEPTH) {
        for (int e = item; e < DEPTH * TILE_M; e += GROUP_M * GROUP_N) {
            const long l = first + e / TILE_M, i = row + e % TILE_M;
            left[e] = l < k && i < m ? a[i * a_row + l * a_column] : 0;
        }
        for (int e = item; e < DEPTH * TILE_N; e += GROUP_M * GROUP_N) {
            const long l = first + e / TILE_N, j = column + e % TILE_N;
            right[e] = l < k && j < n ? b[l * b_row + j * b_column] : 0;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        VECTOR part[ROWS]; /* stays in registers, which what lives across a barrier does not */
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            part[r] = sum[r];
        for (int l = 0; l < DEPTH; l++) {
            const VECTOR across = OF(vload, WIDTH)(x, right + l * TILE_N);
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                part[r] = fma((VECTOR)left[l * TILE_M + y * ROWS + r], across, part[r]);
        }
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = part[r];
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int r = 0; r < ROWS; r++) {
        const long i = row + y * ROWS + r;
        REAL each[WIDTH];
        OF(vstore, WIDTH)(sum[r], 0, each);
        for (int v = 0; v < WIDTH; v++) {
            const long j = column + x * WIDTH + v;
            if (i < m && j < n)
                c[i * n + j] = beta == 0 ? alpha * each[v] : fma(alpha, each[v], beta * c[i * n + j]);
        }
    }
}

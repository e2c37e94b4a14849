/* Product of dense matrices by tiles in local memory: C = alpha A B + beta C, C in C's order.
 *
 * A group of GROUP_M times GROUP_N work items makes a tile of C. Each item makes PANELS times STRIPS blocks of ROWS
 * rows of one vector of WIDTH columns, which stay in registers over DEPTH columns of A and rows of B. Those lie in
 * local memory, with zeros beyond the edges. REAL is float or double.
 * Each element adds its products in their order, one after another, wherever it lies. */
#define JOIN(a, b) a##b
#define OF(type, width) JOIN(type, width)
#define VECTOR OF(REAL, WIDTH)
#define TILE_M (GROUP_M * PANELS * ROWS)
#define TILE_N (GROUP_N * STRIPS * WIDTH)

/* a_ij is a[i * a_row + j * a_column], and so is b. */
kernel void product(global const REAL *restrict a, long a_row, long a_column, global const REAL *restrict b, long b_row,
                    long b_column, global REAL *restrict c, long m, long n, long k, REAL alpha, REAL beta)
{
    local REAL left[DEPTH * TILE_M], right[DEPTH * TILE_N];
    const int x = get_local_id(0), y = get_local_id(1), item = y * GROUP_N + x;
    const long row = get_group_id(1) * (long)TILE_M, column = get_group_id(0) * (long)TILE_N;
    VECTOR sum[PANELS * STRIPS * ROWS];
    for (int r = 0; r < PANELS * STRIPS * ROWS; r++)
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
        for (int block = 0; block < PANELS * STRIPS; block++) {
            local const REAL *up = left + (y * PANELS + block / STRIPS) * ROWS;
            local const REAL *across = right + (x * STRIPS + block % STRIPS) * WIDTH;
            VECTOR part[ROWS];
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                part[r] = sum[block * ROWS + r];
            for (int l = 0; l < DEPTH; l++) {
                const VECTOR line = OF(vload, WIDTH)(0, across + l * TILE_N);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
                    part[r] = fma((VECTOR)up[l * TILE_M + r], line, part[r]);
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                sum[block * ROWS + r] = part[r];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int e = 0; e < PANELS * STRIPS * ROWS; e++) {
        const int block = e / ROWS;
        const long i = row + (y * PANELS + block / STRIPS) * ROWS + e % ROWS;
        REAL each[WIDTH];
        OF(vstore, WIDTH)(sum[e], 0, each);
        for (int v = 0; v < WIDTH; v++) {
            const long j = column + (x * STRIPS + block % STRIPS) * WIDTH + v;
            if (i < m && j < n)
                c[i * n + j] = beta == 0 ? alpha * each[v] : fma(alpha, each[v], beta * c[i * n + j]);
        }
    }
}

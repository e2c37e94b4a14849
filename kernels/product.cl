/* Product of dense matrices by tiles in local memory: C = alpha A B + beta C, C in C's order.
 *
 * A group of GROUP_M times GROUP_N work items makes a tile of C. Each item makes PANELS times STRIPS blocks of ROWS
 * rows of VECTORS vectors of WIDTH columns, which stay in registers over DEPTH columns of A and rows of B. Those lie in
 * local memory, with zeros beyond the edges of C. REAL is float or double; A_BY_ROWS and B_BY_ROWS are 1 in C's order,
 * 0 in Fortran's.
 * Each element adds its products in their order, one after another, wherever it lies. */
#define JOIN(a, b) a##b
#define OF(type, width) JOIN(type, width)
#define VECTOR OF(REAL, WIDTH)
#define LOAD(from) OF(vload, WIDTH)(0, from)
#define STORE(value, to) OF(vstore, WIDTH)(value, 0, to)
#define COLUMNS (VECTORS * WIDTH)
#define TILE_M (GROUP_M * PANELS * ROWS)
#define TILE_N (GROUP_N * STRIPS * COLUMNS)

#if DEPTH % WIDTH || TILE_M % WIDTH
#error "DEPTH and the tile's rows must be whole vectors"
#endif

/* A's tile lies as A does, line after line. GAP numbers keep a block's lines off each other's sets or banks. */
#if A_BY_ROWS
#define LEFT_LINE (DEPTH + GAP)
#define LEFT_LINES TILE_M
#define LEFT(i, l) ((i) * LEFT_LINE + (l))
#else
#define LEFT_LINE (TILE_M + GAP)
#define LEFT_LINES DEPTH
#define LEFT(i, l) ((l) * LEFT_LINE + (i))
#endif
/* B's tile lies strip after strip, each with its rows one after another. */
#define RIGHT(l, vector) ((((vector) / VECTORS * DEPTH + (l)) * VECTORS + (vector) % VECTORS) * WIDTH)

/* A vector of a line, of which count numbers are there. */
static VECTOR some(global const REAL *from, const long count)
{
    if (count >= WIDTH)
        return LOAD(from);
    if (count <= 0)
        return 0;
    REAL each[WIDTH];
    for (int v = 0; v < WIDTH; v++)
        each[v] = v < count ? from[v] : 0;
    return LOAD(each);
}

/* Rows become columns. */
static void transpose(VECTOR *block)
{
#pragma unroll
    for (int step = 1; step < WIDTH; step *= 2) {
        VECTOR next[WIDTH];
#pragma unroll
        for (int r = 0; r < WIDTH / 2; r++) {
            next[2 * r].even = block[r].lo;
            next[2 * r].odd = block[r + WIDTH / 2].lo;
            next[2 * r + 1].even = block[r].hi;
            next[2 * r + 1].odd = block[r + WIDTH / 2].hi;
        }
#pragma unroll
        for (int r = 0; r < WIDTH; r++)
            block[r] = next[r];
    }
}

/* a_line and b_line are the distances of lines: of rows in C's order, of columns in Fortran's. */
kernel void product(global const REAL *restrict a, long a_line, global const REAL *restrict b, long b_line,
                    global REAL *restrict c, long m, long n, long k, REAL alpha, REAL beta)
{
    local REAL left[LEFT_LINES * LEFT_LINE] __attribute__((aligned(64)));
    local REAL right[DEPTH * TILE_N] __attribute__((aligned(64)));
    const int x = get_local_id(0), y = get_local_id(1);
    const long row = get_group_id(1) * (long)TILE_M, column = get_group_id(0) * (long)TILE_N;
    const int rows = min(m - row, (long)TILE_M), columns = min(n - column, (long)TILE_N);
    /* what is filled: whole blocks */
    const int high = (rows + ROWS - 1) / ROWS * ROWS, vectors = (columns + COLUMNS - 1) / COLUMNS * VECTORS;
    VECTOR sum[PANELS * STRIPS * ROWS * VECTORS];
    for (int e = 0; e < PANELS * STRIPS * ROWS * VECTORS; e++)
        sum[e] = 0;
    for (long first = 0; first < k; first += DEPTH) {
        const int depth = min(k - first, (long)DEPTH);
#if A_BY_ROWS
        for (int i = y; i < high; i += GROUP_M)
            for (int l = x * WIDTH; l < depth; l += GROUP_N * WIDTH)
                STORE(some(a + (row + i) * a_line + first + l, i < rows ? depth - l : 0), left + LEFT(i, l));
#else
        for (int l = y; l < depth; l += GROUP_M)
            for (int i = x * WIDTH; i < high; i += GROUP_N * WIDTH)
                STORE(some(a + (first + l) * a_line + row + i, rows - i), left + LEFT(i, l));
#endif
#if B_BY_ROWS
        for (int l = y; l < depth; l += GROUP_M)
            for (int j = x; j < vectors; j += GROUP_N)
                STORE(some(b + (first + l) * b_line + column + j * WIDTH, columns - j * WIDTH), right + RIGHT(l, j));
#else
        for (int j = y; j < vectors; j += GROUP_M)
            for (int l = x * WIDTH; l < depth; l += GROUP_N * WIDTH) {
                if (l + WIDTH > depth || j * WIDTH + WIDTH > columns) {
                    for (int e = 0; e < WIDTH * WIDTH; e++) {
                        const int u = l + e / WIDTH, v = j * WIDTH + e % WIDTH;
                        const int there = u < depth && v < columns;
                        right[RIGHT(u, j) + e % WIDTH] = there ? b[(column + v) * b_line + first + u] : 0;
                    }
                    continue;
                }
                VECTOR block[WIDTH];
#pragma unroll
                for (int v = 0; v < WIDTH; v++)
                    block[v] = LOAD(b + (column + j * WIDTH + v) * b_line + first + l);
                transpose(block);
#pragma unroll
                for (int v = 0; v < WIDTH; v++)
                    STORE(block[v], right + RIGHT(l + v, j));
            }
#endif
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int panel = 0; panel < PANELS; panel++)
            for (int strip = 0; strip < STRIPS; strip++) {
                if ((y * PANELS + panel) * ROWS >= rows || (x * STRIPS + strip) * COLUMNS >= columns)
                    continue; /* beyond C */
                local const REAL *up = left + LEFT((y * PANELS + panel) * ROWS, 0);
                local const REAL *across = right + RIGHT(0, (x * STRIPS + strip) * VECTORS);
                VECTOR *sums = sum + (panel * STRIPS + strip) * ROWS * VECTORS;
                VECTOR part[ROWS][VECTORS];
#pragma unroll
                for (int r = 0; r < ROWS; r++)
#pragma unroll
                    for (int v = 0; v < VECTORS; v++)
                        part[r][v] = sums[r * VECTORS + v];
                for (int l = 0; l < depth; l++) {
                    VECTOR line[VECTORS];
#pragma unroll
                    for (int v = 0; v < VECTORS; v++)
                        line[v] = LOAD(across + l * COLUMNS + v * WIDTH);
#pragma unroll
                    for (int r = 0; r < ROWS; r++)
#pragma unroll
                        for (int v = 0; v < VECTORS; v++)
                            part[r][v] = fma((VECTOR)up[LEFT(r, l)], line[v], part[r][v]);
                }
#pragma unroll
                for (int r = 0; r < ROWS; r++)
#pragma unroll
                    for (int v = 0; v < VECTORS; v++)
                        sums[r * VECTORS + v] = part[r][v];
            }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    for (int e = 0; e < PANELS * STRIPS * ROWS * VECTORS; e++) {
        const int block = e / (ROWS * VECTORS), r = e / VECTORS % ROWS, v = e % VECTORS;
        const int i = (y * PANELS + block / STRIPS) * ROWS + r;
        const int j = (x * STRIPS + block % STRIPS) * COLUMNS + v * WIDTH;
        global REAL *to = c + (row + i) * n + column + j;
        if (i >= rows || j >= columns)
            continue;
        if (j + WIDTH <= columns) {
            STORE(beta == 0 ? alpha * sum[e] : fma((VECTOR)alpha, sum[e], beta * LOAD(to)), to);
        } else {
            REAL each[WIDTH];
            STORE(sum[e], each);
            for (int u = 0; u < WIDTH; u++)
                if (j + u < columns)
                    to[u] = beta == 0 ? alpha * each[u] : fma(alpha, each[u], beta * to[u]);
        }
    }
}

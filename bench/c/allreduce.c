/* What sums of floats over ranks are held against: MPI_Allreduce in place, called from C.
 *
 * Arguments are sizes; for each it prints the size and the median over calls of the slowest rank's seconds. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

static int order(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int i = 1; i < argc; i++) {
        const long count = atol(argv[i]);
        const int calls = count < 1000000 ? 200 : 30;
        float *values = malloc(count * sizeof *values);
        double *times = malloc(calls * sizeof *times);
        for (long j = 0; j < count; j++)
            values[j] = 0;
        for (int call = -3; call < calls; call++) {
            MPI_Barrier(MPI_COMM_WORLD);
            double mine = MPI_Wtime(), slowest;
            MPI_Allreduce(MPI_IN_PLACE, values, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            mine = MPI_Wtime() - mine;
            MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
            if (call >= 0)
                times[call] = slowest;
        }
        qsort(times, calls, sizeof *times, order);
        if (rank == 0)
            printf("%ld %.9f\n", count, times[calls / 2]);
        free(values);
        free(times);
    }
    MPI_Finalize();
    return 0;
}

/* Runs a library of one input and one output on codes from a file, and writes the output codes to another.
 *
 *   run_codes THREADS N REPEATS INPUT OUTPUT
 *
 * Compiled with -DMODEL=<name> -DMACRO=<NAME in capitals>; statically linked against libnet.a. Exit codes: 1 usage or files,
 * 2 memory, 3 a repeated run gives other codes, 4 the library reads no pool, and 10 less the library's status.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define FUNCTION(part) JOIN(qc_, MODEL, part)
#define CONSTANT(part) JOIN(QC_, MACRO, part)

#if CONSTANT(_INPUTS) != 1 || CONSTANT(_OUTPUTS) != 1
#error "this program is for one input and one output"
#endif

typedef CONSTANT(_INPUT_0_TYPE) input_code;
typedef CONSTANT(_OUTPUT_0_TYPE) output_code;

static void *aligned(size_t bytes)
{
    return aligned_alloc(QC_ALIGNMENT, (bytes + QC_ALIGNMENT) / QC_ALIGNMENT * QC_ALIGNMENT);
}

int main(int argc, char **argv)
{
    int32_t threads, n;
    int repeats, repeat;
    size_t input_count, output_count;
    input_code *x;
    output_code *y, *first;
    const void *inputs[1];
    void *outputs[1], *workspace, *memory;
    FUNCTION(_pool) * pool;
    FUNCTION(_options) options;
    FILE *file;
    if (argc != 6)
        return 1;
    threads = atoi(argv[1]);
    n = atoi(argv[2]);
    repeats = atoi(argv[3]);
    input_count = (size_t)n * CONSTANT(_INPUT_0_ELEMENTS);
    output_count = (size_t)n * CONSTANT(_OUTPUT_0_ELEMENTS);
    x = malloc(input_count * sizeof *x);
    y = malloc(output_count * sizeof *y);
    first = malloc(output_count * sizeof *first);
    workspace = aligned(FUNCTION(_workspace_bytes)(NULL));
    memory = aligned(FUNCTION(_pool_bytes)(threads));
    if (!x || !y || !first || !workspace || !memory)
        return 2;
    file = fopen(argv[4], "rb");
    if (!file || fread(x, sizeof *x, input_count, file) != input_count || fclose(file))
        return 1;
    pool = FUNCTION(_pool_create)(memory, threads);
    if (!pool)
        return 4;
    memset(&options, 0, sizeof options);
    options.struct_bytes = sizeof options;
    options.threads = threads;
    options.parallel = FUNCTION(_pool_parallel_for);
    options.parallel_context = pool;
    inputs[0] = x;
    outputs[0] = y;
    for (repeat = 0; repeat < repeats; ++repeat) {
        int32_t status = FUNCTION(_run)(inputs, outputs, n, workspace, &options);
        if (status)
            return 10 - status;
        if (repeat && memcmp(first, y, output_count * sizeof *y))
            return 3;
        memcpy(first, y, output_count * sizeof *y);
    }
    FUNCTION(_pool_destroy)(pool);
    file = fopen(argv[5], "wb");
    if (!file || fwrite(y, sizeof *y, output_count, file) != output_count || fclose(file))
        return 1;
    free(memory);
    free(workspace);
    free(first);
    free(y);
    free(x);
    return 0;
}

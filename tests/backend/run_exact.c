/* Runs a library with every tensor, the workspace and a copy of the weights in heap blocks of exactly their size, for memcheck.
 *
 *   run_exact THREADS SAMPLES IN OUT
 *
 * IN and OUT hold all tensors one after the other. Compiled with -DMODEL=<name> -DMACRO=<NAME in capitals> and the bytes of one
 * sample of each tensor as -DINPUT_BYTES=.. -DOUTPUT_BYTES=.. Exit codes: 1 usage or files, 2 memory, 3 no pool, and 10 less the
 * library's status.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define FUNCTION(part) JOIN(qc_, MODEL, part)
#define CONSTANT(part) JOIN(QC_, MACRO, part)

static const size_t input_bytes[] = {INPUT_BYTES}, output_bytes[] = {OUTPUT_BYTES};
#define INPUTS (sizeof input_bytes / sizeof *input_bytes)
#define OUTPUTS (sizeof output_bytes / sizeof *output_bytes)

static void *room(size_t bytes)
{
    void *place = NULL;
    if (posix_memalign(&place, QC_ALIGNMENT, bytes))
        exit(2);
    return place;
}

int main(int argc, char **argv)
{
    void *inputs[INPUTS], *outputs[OUTPUTS], *weights, *workspace, *memory;
    FUNCTION(_options) options;
    int32_t threads, status;
    size_t n, i;
    FILE *file;
    if (argc != 5)
        return 1;
    threads = atoi(argv[1]);
    n = (size_t)atoi(argv[2]);
    file = fopen(argv[3], "rb");
    for (i = 0; file && i < INPUTS; ++i) {
        inputs[i] = malloc(n * input_bytes[i]);
        if (!inputs[i])
            return 2;
        if (fread(inputs[i], 1, n * input_bytes[i], file) != n * input_bytes[i])
            return 1;
    }
    if (!file || fclose(file))
        return 1;
    for (i = 0; i < OUTPUTS; ++i)
        if (!(outputs[i] = malloc(n * output_bytes[i])))
            return 2;
    weights = room(CONSTANT(_WEIGHTS_BYTES));
    memcpy(weights, FUNCTION(_weights), CONSTANT(_WEIGHTS_BYTES));
    workspace = room(FUNCTION(_workspace_bytes)(NULL));
    memory = room(FUNCTION(_pool_bytes)(threads));
    memset(&options, 0, sizeof options);
    options.struct_bytes = sizeof options;
    options.weights = weights;
    options.threads = threads;
    if (threads > 1) {
        options.parallel = FUNCTION(_pool_parallel_for);
        options.parallel_context = FUNCTION(_pool_create)(memory, threads);
        if (!options.parallel_context)
            return 3;
    }
    status = FUNCTION(_run)((const void *const *)inputs, outputs, (int32_t)n, workspace, &options);
    if (status)
        return 10 - status;
    FUNCTION(_pool_destroy)(options.parallel_context);
    file = fopen(argv[4], "wb");
    for (i = 0; file && i < OUTPUTS; ++i) {
        if (fwrite(outputs[i], 1, n * output_bytes[i], file) != n * output_bytes[i])
            return 1;
        free(outputs[i]);
    }
    if (!file || fclose(file))
        return 1;
    for (i = 0; i < INPUTS; ++i)
        free(inputs[i]);
    free(weights);
    free(workspace);
    free(memory);
    return 0;
}

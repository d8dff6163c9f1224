/* Classifies one image with a network that qcompiler built under the name "net"; nothing but this file and libnet.a is needed:
 *
 *     cc -O2 main.c -Ibuild build/libnet.a -pthread -o classify && ./classify image.codes 2
 *
 * image.codes holds the codes of one image, as net.h describes input 0. Prints the best class, its output code and the
 * time of the fastest of 20 runs. All memory is static; only the optional thread pool needs pthread. */
#define _POSIX_C_SOURCE 200809L
#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "net.h"

enum { MAXIMUM_THREADS = 8, POOL_BYTES = 4096, RUNS = 20 };

static QC_NET_INPUT_0_TYPE image[QC_NET_INPUT_0_ELEMENTS];
static QC_NET_OUTPUT_0_TYPE scores[QC_NET_OUTPUT_0_ELEMENTS];
static alignas(QC_ALIGNMENT) unsigned char workspace[QC_NET_WORKSPACE_BYTES];
static alignas(QC_ALIGNMENT) unsigned char pool_memory[POOL_BYTES];

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    const void *inputs[QC_NET_INPUTS] = {image};
    void *outputs[QC_NET_OUTPUTS] = {scores};
    const int threads = argc > 2 ? atoi(argv[2]) : 1;
    double fastest = 1e9;
    int best = 0;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;

    if (file == NULL || fread(image, sizeof image[0], QC_NET_INPUT_0_ELEMENTS, file) != QC_NET_INPUT_0_ELEMENTS) {
        fprintf(stderr, "usage: %s FILE [THREADS]: FILE has %zu bytes, one image as codes\n", argv[0], sizeof image);
        return 2;
    }
    fclose(file);
    if (threads < 1 || threads > MAXIMUM_THREADS || qc_net_pool_bytes(threads) > sizeof pool_memory) {
        fprintf(stderr, "THREADS is 1 to %d\n", MAXIMUM_THREADS);
        return 2;
    }
    qc_net_pool *pool = qc_net_pool_create(pool_memory, threads);
    const qc_net_options options = {.struct_bytes = sizeof options,
                                    .parallel = qc_net_pool_parallel_for,
                                    .parallel_context = pool,
                                    .threads = threads};
    for (int run = 0; run < RUNS; ++run) {
        const double begin = milliseconds();
        const int32_t status = qc_net_run(inputs, outputs, 1, workspace, &options);
        const double taken = milliseconds() - begin;
        if (status != QC_OK) {
            fprintf(stderr, "qc_net_run returned %d; qc_status in net.h says what that means\n", (int)status);
            return 1;
        }
        fastest = taken < fastest ? taken : fastest;
    }
    qc_net_pool_destroy(pool);
    for (int i = 1; i < QC_NET_OUTPUT_0_ELEMENTS; ++i)
        best = scores[i] > scores[best] ? i : best;
    printf("class %d, code %d, %.3f ms with %d thread%s\n", best, (int)scores[best], fastest, threads, threads > 1 ? "s" : "");
    return 0;
}

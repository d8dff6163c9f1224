/* Runs a library of many inputs and outputs: run_many SAMPLES IN OUT, all tensors one after the other. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "net.h"

#define JOIN_(a, b, c) a##b##c
#define JOIN(a, b, c) JOIN_(a, b, c)

static const size_t input_bytes[] = {INPUT_BYTES}, output_bytes[] = {OUTPUT_BYTES};
#define INPUTS (sizeof input_bytes / sizeof *input_bytes)
#define OUTPUTS (sizeof output_bytes / sizeof *output_bytes)

static void *room(size_t bytes)
{
    void *place = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!place)
        exit(2);
    return place;
}

int main(int argc, char **argv)
{
    const void *inputs[INPUTS];
    void *outputs[OUTPUTS];
    if (argc != 4)
        return 3;
    int n = atoi(argv[1]);
    FILE *in = fopen(argv[2], "rb"), *out = fopen(argv[3], "wb");
    if (!in || !out)
        return 4;
    for (size_t i = 0; i < INPUTS; i++) {
        void *place = room(input_bytes[i] * (size_t)n);
        if (fread(place, 1, input_bytes[i] * (size_t)n, in) != input_bytes[i] * (size_t)n)
            return 5;
        inputs[i] = place;
    }
    for (size_t i = 0; i < OUTPUTS; i++)
        outputs[i] = room(output_bytes[i] * (size_t)n);
    int32_t status = JOIN(qc_, MODEL, _run)(inputs, outputs, n, room(JOIN(qc_, MODEL, _workspace_bytes)(NULL)), NULL);
    if (status)
        return 6;
    for (size_t i = 0; i < OUTPUTS; i++)
        fwrite(outputs[i], 1, output_bytes[i] * (size_t)n, out);
    return fclose(out) ? 7 : 0;
}

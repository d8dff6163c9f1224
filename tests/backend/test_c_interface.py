"""The artifact from C: statically linked, with threads, every error code, two models in one program, and arm64 under qemu."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompiler.backend.artifact import Artifact
from qcompiler.backend.c_source import write_sources
from qcompiler.backend.elf import read_elf
from qcompiler.backend.program import Program
from qcompiler.targets.target import host_architecture, host_runs, load_target
from tests.backend.c_program import compile_program
from tests.tools import need

Build = Callable[..., Artifact]

RUN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "net.h"

static uint8_t x[7 * QC_TINY_INPUT_0_ELEMENTS];
static QC_TINY_OUTPUT_0_TYPE y[7 * QC_TINY_OUTPUT_0_ELEMENTS];

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    const void *inputs[QC_TINY_INPUTS];
    void *outputs[QC_TINY_OUTPUTS];
    qc_tiny_options options;
    void *workspace = aligned_alloc(QC_ALIGNMENT, (qc_tiny_workspace_bytes(NULL) + 63) / 64 * 64);
    void *memory = aligned_alloc(QC_ALIGNMENT, (qc_tiny_pool_bytes(threads) + 63) / 64 * 64);
    qc_tiny_pool *pool = qc_tiny_pool_create(memory, threads);
    int status, repeat;
    inputs[0] = x;
    outputs[0] = y;
    if (fread(x, 1, sizeof x, stdin) != sizeof x || !pool)
        return 1;
    memset(&options, 0, sizeof options);
    options.struct_bytes = sizeof options;
    options.threads = threads;
    options.parallel = qc_tiny_pool_parallel_for;
    options.parallel_context = pool;
    for (repeat = 0; repeat < 50; ++repeat) {
        status = qc_tiny_run(inputs, outputs, 7, workspace, &options);
        if (status)
            return -status;
    }
    qc_tiny_pool_destroy(pool);
    fwrite(y, sizeof *y, sizeof y / sizeof *y, stdout);
    free(memory);
    free(workspace);
    return 0;
}
"""

ERRORS = r"""
#include <stdio.h>
#include <string.h>
#include "net.h"

static _Alignas(64) unsigned char workspace[QC_TINY_WORKSPACE_BYTES + 64], copy[QC_TINY_WEIGHTS_BYTES + 64];
static uint8_t x[128];
static int16_t y[129];
static int failures;

static void expect(int32_t found, int32_t wanted, int line)
{
    if (found != wanted) {
        printf("line %d: %d, not %d\n", line, (int)found, (int)wanted);
        ++failures;
    }
}
#define EXPECT(call, wanted) expect(call, wanted, __LINE__)

int main(void)
{
    const void *inputs[] = {x}, *no_input[] = {NULL};
    void *outputs[] = {y}, *no_output[] = {NULL}, *odd_output[] = {(char *)y + 1};
    qc_tiny_options options = {sizeof(qc_tiny_options), NULL, NULL, NULL, 0, NULL, NULL};
    void *state = x;
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, NULL), QC_OK);
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_OK);
    EXPECT(qc_tiny_run(NULL, NULL, 0, NULL, NULL), QC_OK);
    EXPECT(qc_tiny_run(inputs, outputs, -1, workspace, NULL), QC_ERROR_BATCH);
    EXPECT(qc_tiny_run(NULL, outputs, 1, workspace, NULL), QC_ERROR_NULL);
    EXPECT(qc_tiny_run(inputs, NULL, 1, workspace, NULL), QC_ERROR_NULL);
    EXPECT(qc_tiny_run(no_input, outputs, 1, workspace, NULL), QC_ERROR_NULL);
    EXPECT(qc_tiny_run(inputs, no_output, 1, workspace, NULL), QC_ERROR_NULL);
    EXPECT(qc_tiny_run(inputs, odd_output, 1, workspace, NULL), QC_ERROR_ALIGNMENT);
    EXPECT(qc_tiny_run(inputs, outputs, 1, NULL, NULL), QC_ERROR_WORKSPACE);
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace + 32, NULL), QC_ERROR_WORKSPACE);
    options.weights = copy + 1;
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_ERROR_WEIGHTS);
    options.weights = memcpy(copy, qc_tiny_weights, QC_TINY_WEIGHTS_BYTES);
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_OK);
    options.threads = -1;
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_ERROR_THREADS);
    options.threads = 4; /* no parallel: on this thread */
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_OK);
    options.struct_bytes -= 8;
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_ERROR_OPTIONS);
    options.struct_bytes += 16;
    EXPECT(qc_tiny_run(inputs, outputs, 1, workspace, &options), QC_ERROR_OPTIONS);
    EXPECT(qc_tiny_open(&options, &state), QC_OK);
    EXPECT(state == NULL, 1);
    EXPECT(qc_tiny_open(NULL, NULL), QC_ERROR_NULL);
    qc_tiny_close(state);
    EXPECT(qc_tiny_pool_create(NULL, 2) == NULL, 1);
    EXPECT(qc_tiny_pool_create(workspace + 8, 2) == NULL, 1);
    EXPECT(qc_tiny_pool_create(workspace, 0) == NULL, 1);
    qc_tiny_pool_destroy(NULL);
    return failures;
}
"""

TWO = r"""
#include <stdio.h>
#include "one.h"
#include "two.h"
#include "one.h"

alignas(64) static unsigned char workspace[QC_TINY_WORKSPACE_BYTES + QC_OTHER_WORKSPACE_BYTES];
static uint8_t x[128];
static int16_t y[2][128];

int main()
{
    const void *inputs[] = {x};
    void *first[] = {y[0]}, *second[] = {y[1]};
    if (fread(x, 1, sizeof x, stdin) != sizeof x)
        return 1;
    qc_other_options options = {sizeof(qc_other_options), nullptr, qc_tiny_pool_parallel_for, nullptr, 2, nullptr, nullptr};
    if (qc_tiny_run(inputs, first, 1, workspace, nullptr) || qc_other_run(inputs, second, 1, workspace, &options))
        return 2;
    fwrite(y, 1, sizeof y, stdout);
    return 0;
}
"""

HAMMER = r"""
#include <stdio.h>
#include <stdlib.h>
#include "net.h"

enum { LARGEST = (1 << 20) - 1 }; /* count of a job that threads share */

static int32_t counts[64];
static unsigned char seen[LARGEST + 3];
static qc_tiny_pool *pool;

static void see(void *data, int32_t index) { ((unsigned char *)data)[index] += 1; }

static void nested(void *data, int32_t index) { ((int32_t *)data)[index] += 1; }

static void add(void *data, int32_t index)
{
    int32_t local[3] = {0, 0, 0};
    ((int32_t *)data)[index] += 1;
    if (index == 0)
        qc_tiny_pool_parallel_for(pool, nested, local, 3);
}

static void *other(void *context)
{
    int32_t own[16] = {0}, i;
    (void)context;
    for (i = 0; i < 2000; ++i)
        qc_tiny_pool_parallel_for(pool, add, own, 16);
    for (i = 0; i < 16; ++i)
        if (own[i] != 2000)
            exit(4);
    return NULL;
}

#include <pthread.h>
int main(void)
{
    int round, i;
    for (round = 0; round < 20; ++round) {
        pthread_t thread;
        void *memory = aligned_alloc(64, (qc_tiny_pool_bytes(4) + 63) / 64 * 64);
        pool = qc_tiny_pool_create(memory, 4);
        if (round % 4 == 1 && pthread_create(&thread, NULL, other, NULL))
            return 2;
        for (i = 0; i < 500; ++i)
            qc_tiny_pool_parallel_for(pool, add, counts, 1 + i % 64);
        for (i = LARGEST; round == 0 && i <= LARGEST + 3; i += 3) {
            int32_t j;
            qc_tiny_pool_parallel_for(pool, see, seen, i);
            for (j = 0; j < i; ++j)
                if (seen[j] != (i == LARGEST || j >= LARGEST ? 1 : 2))
                    return 5;
        }
        if (round % 4 == 1)
            pthread_join(thread, NULL);
        qc_tiny_pool_destroy(pool);
        free(memory);
    }
    for (i = 0; i < 64; ++i) {
        int32_t wanted = 0, j;
        for (j = 0; j < 500; ++j)
            wanted += 1 + j % 64 > i;
        if (counts[i] != 20 * wanted)
            return 3;
    }
    return 0;
}
"""


def samples(count: int = 7) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (count, 8, 16)).astype(np.uint8)


def compile_text(folder: Path, text: str, flags: Sequence[str], command: str = "cc", suffix: str = "c") -> Path:
    source = folder / f"main.{suffix}"
    source.write_text(text)
    return compile_program(folder, source, flags, command)


def run_codes(command: Sequence[str], x: np.ndarray) -> np.ndarray:
    done = subprocess.run(command, input=x.tobytes(), capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return np.frombuffer(done.stdout, dtype=np.int16).reshape(-1, 8, 16)


@pytest.mark.parametrize("target", ["x86-avx512vnni", "x86-avxvnni", "x86-avx2", "x86-baseline"])
@pytest.mark.parametrize("batch_tile", [1, 3])
def test_static_library_with_one_and_four_threads(
    build: Build, meaning: Callable[..., np.ndarray], tmp_path: Path, target: str, batch_tile: int
) -> None:
    need("cc")
    if not host_runs(load_target(target)):
        pytest.skip(f"this CPU does not run {target}")
    artifact = build(target=target, batch_tile=batch_tile)
    program = compile_text(tmp_path, RUN, ["-std=c11", f"-I{artifact.folder}", str(artifact.folder / "libnet.a"), "-pthread"])
    x = samples()
    for threads in ("1", "4"):
        assert np.array_equal(run_codes([str(program), threads], x), meaning(x))


def test_object_file_alone_and_shared_library(build: Build, meaning: Callable[..., np.ndarray], tmp_path: Path) -> None:
    need("cc")
    if host_architecture() != "x86_64":
        pytest.skip("the library is for x86-64")
    folder = build().folder
    x = samples()
    for flags in (["-static", str(folder / "net.o")], [str(folder / "libnet.so"), f"-Wl,-rpath,{folder}"]):
        program = compile_text(tmp_path, RUN, ["-std=c11", f"-I{folder}", *flags, "-pthread"])
        assert np.array_equal(run_codes([str(program), "2"], x), meaning(x))


def test_every_error_code(build: Build, tmp_path: Path) -> None:
    need("cc")
    if host_architecture() != "x86_64":
        pytest.skip("the library is for x86-64")
    folder = build().folder
    program = compile_text(tmp_path, ERRORS, ["-std=c11", f"-I{folder}", str(folder / "libnet.a"), "-pthread"])
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_two_models_in_one_program_of_cplusplus(build: Build, meaning: Callable[..., np.ndarray], tmp_path: Path) -> None:
    need("g++")
    if host_architecture() != "x86_64":
        pytest.skip("the library is for x86-64")
    one, two = build().folder, build(name="other", seed=5).folder
    shutil.copy(one / "net.h", tmp_path / "one.h")
    shutil.copy(two / "net.h", tmp_path / "two.h")
    libraries = [str(one / "libnet.a"), str(two / "libnet.a"), "-pthread"]
    program = compile_text(tmp_path, TWO, ["-std=c++17", f"-I{tmp_path}", *libraries], "g++", "cpp")
    x = samples(1)
    assert np.array_equal(run_codes([str(program)], x), np.concatenate([meaning(x), meaning(x, 5)]))


@pytest.mark.parametrize("target", ["x86-baseline", "arm64-neon"])
@pytest.mark.parametrize("pool", [True, False])
def test_nothing_is_needed_but_libc_and_pthread(build: Build, target: str, pool: bool) -> None:
    folder = build(target=target, pool=pool).folder
    for name in ("net.o", "libnet.so"):
        file = read_elf((folder / name).read_bytes())
        others = {symbol for symbol in file.undefined if not (pool and symbol.startswith("pthread_"))}
        assert others <= {"memcpy", "memset", *(["clock_gettime"] if pool else [])}
    assert ("qc_tiny_pool_create" in file.exported) == pool
    assert all(symbol.startswith("qc_tiny_") and "_k_" not in symbol for symbol in file.exported)


STALL = r"""
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include "net.h"

static pthread_t caller;
static _Atomic int others, stall_ms;

static void pause_ms(int milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    nanosleep(&time, NULL);
}

static void task(void *data, int32_t index)
{
    (void)data;
    (void)index;
    int mine = pthread_equal(pthread_self(), caller);
    if (!mine)
        ++others;
    pause_ms(mine ? 1 : stall_ms);
}

static int taken_by_others(qc_tiny_pool *pool, int milliseconds)
{
    others = 0;
    stall_ms = milliseconds;
    qc_tiny_pool_parallel_for(pool, task, NULL, 16);
    return others;
}

int main(void)
{
    void *memory = aligned_alloc(QC_ALIGNMENT, (qc_tiny_pool_bytes(2) + 63) / 64 * 64);
    qc_tiny_pool *pool = qc_tiny_pool_create(memory, 2);
    int alone = 0, together = 0, repeat;
    caller = pthread_self();
    for (repeat = 0; repeat < 5; ++repeat)
        alone += taken_by_others(pool, 300) && !taken_by_others(pool, 1);
    for (repeat = 0; repeat < 5; ++repeat) {
        pause_ms(200);
        together += taken_by_others(pool, 1) > 0;
    }
    qc_tiny_pool_destroy(pool);
    free(memory);
    return alone == 0 ? 1 : together == 0 ? 2 : 0;
}
"""


def test_after_a_thread_was_stopped_the_caller_works_alone_for_a_time(
    program_maker: Callable[..., Program], tmp_path: Path
) -> None:
    need("cc")
    sources = write_sources(program_maker("tiny", "x86-baseline"), "x86-baseline", pool=True)
    (tmp_path / "net.h").write_text(sources.header)
    assert sources.pool is not None
    (tmp_path / "pool.c").write_text(sources.pool)
    program = compile_text(tmp_path, STALL, ["-std=c11", f"-I{tmp_path}", str(tmp_path / "pool.c"), "-pthread"])
    assert subprocess.run([program], timeout=120).returncode == 0


def test_pool_under_thread_sanitizer(program_maker: Callable[..., Program], tmp_path: Path) -> None:
    need("cc")
    sources = write_sources(program_maker("tiny", "x86-baseline"), "x86-baseline", pool=True)
    (tmp_path / "net.h").write_text(sources.header)
    assert sources.pool is not None
    (tmp_path / "pool.c").write_text(sources.pool)
    flags = ["-std=c11", "-g", f"-I{tmp_path}", str(tmp_path / "pool.c"), "-pthread"]
    program = compile_text(tmp_path, HAMMER, flags)
    assert subprocess.run([program], timeout=120).returncode == 0
    try:
        program = compile_text(tmp_path, HAMMER, [*flags, "-fsanitize=thread"])
    except subprocess.CalledProcessError:
        pytest.skip("gcc has no ThreadSanitizer here")
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    assert done.returncode == 0, done.stderr


@pytest.mark.arm64
@pytest.mark.parametrize("target", ["arm64-dotprod", "arm64-neon"])
def test_arm64_under_qemu(build: Build, meaning: Callable[..., np.ndarray], tmp_path: Path, target: str) -> None:
    need("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
    folder = build(target=target, batch_tile=3).folder
    flags = ["-std=c11", f"-I{folder}", "-static", str(folder / "libnet.a"), "-pthread"]
    program = compile_text(tmp_path, RUN, flags, "aarch64-linux-gnu-gcc")
    x = samples()
    for threads in ("1", "4"):
        assert np.array_equal(run_codes(["qemu-aarch64-static", str(program), threads], x), meaning(x))

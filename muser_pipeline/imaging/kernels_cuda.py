"""The minor cycles on a GPU: kernels in CUDA C, and the launches of them.

One launch is one step of Hogbom's loop, in as many images at once as there are. Each
block looks at the peaks that the blocks of the launch before left, so that all come to
the same component, subtracts its beam from its own pixels, and leaves the highest of
them. What was found and why it ended stays on the device; the host only puts launches
into the queue. Operations are rounded one by one, as `kernels_cpu` does, and of equal
peaks the first is taken: the components are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, library_of
from muser_pipeline.imaging.minor import Ended, Tell
from muser_pipeline.imaging.thresholds import single

THREADS = 256
"""In a block; a power of two."""
LAUNCHES = 200
"""Steps between two looks of the host: a millisecond or two."""
_BLOCKS = 256
"""In an image at most: a thread has one peak of the launch before to look at."""
_RESIDENT = 1024
"""Blocks that are of use at a time, on a GPU of some 130 multiprocessors."""
_BLOCKS_AT_LEAST = 16
_ENDED: tuple[Ended, ...] = ("limit", "floor", "diverged", "limit")
"""By the number that a kernel writes down."""

SOURCE = r"""
#define NOWHERE 0x7fffffff
enum { RUNNING, FLOOR, DIVERGED, LIMIT };

/* Of two pixels the higher, of equal ones the first. */
__device__ static void keep(
    float *height, float *value, int *place, float height2, float value2, int place2)
{
    if (height2 > *height || (height2 == *height && place2 < *place)) {
        *height = height2;
        *value = value2;
        *place = place2;
    }
}

/* The highest of what the threads of a block have, given to all of them. */
__device__ static void agree(
    float *heights, float *values, int *places, float *height, float *value, int *place)
{
    const int me = threadIdx.x;
    __syncthreads();
    heights[me] = *height;
    values[me] = *value;
    places[me] = *place;
    for (int half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (me < half)
            keep(&heights[me], &values[me], &places[me],
                 heights[me + half], values[me + half], places[me + half]);
    }
    __syncthreads();
    *height = heights[0];
    *value = values[0];
    *place = places[0];
}

/* One step. Grid: blocks, layers, images. Buffers that are read in one launch and
   written in the same one are twofold, for even and odd steps. Step -1 only looks. */
extern "C" __global__ void hogbom(
    float *residual,            /* image, layer, size, size */
    const float *psf,           /* image or 1, pair, extent, extent */
    const int *pair,            /* layer, layer */
    const unsigned char *mask,  /* size, size */
    const float *gain,          /* layer */
    const float *floors,        /* image */
    const int *until,           /* image */
    float *peak_value,          /* 2, image, layer, block */
    int *peak_place,            /* 2, image, layer, block */
    float *least,               /* 2, image */
    int *best,                  /* image: steps there were at the least peak */
    int *ended,                 /* image: why */
    int *count,                 /* image */
    int *over,                  /* image: the step at which it ended */
    int *places,                /* image, step */
    float *flux,                /* image, step */
    float divergence, int size, int extent, long long psf_of_image, int steps,
    int has_mask, int is_signed, int step)
{
    __shared__ float heights[THREADS], values[THREADS];
    __shared__ int at[THREADS];
    const int layers = gridDim.y, image = blockIdx.z, images = gridDim.z;
    const int pixels = size * size, peaks = layers * gridDim.x;
    const int odd = step & 1;
    const bool writes = blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0;
    float height = -1.0f, value = 0.0f, taken = 0.0f;
    int place = NOWHERE, down = 0, right = 0;
    const float *beam = psf + image * psf_of_image;

    /* a block may see what another one writes in this very step: it must not tell */
    if (over[image] < step)
        return;
    if (step >= 0) {
        const long long first = ((long long)(1 - odd) * images + image) * peaks;
        for (int i = threadIdx.x; i < peaks; i += THREADS) {
            const float peak = peak_value[first + i];
            const int there = peak_place[first + i];
            if (there != NOWHERE)
                keep(&height, &value, &place, is_signed ? peak : fabsf(peak), peak,
                     there);
        }
        agree(heights, values, at, &height, &value, &place);
        const float lowest = least[(1 - odd) * images + image];
        int why = RUNNING;
        if (step >= until[image])
            why = LIMIT;
        else if (height <= floors[image])
            why = FLOOR;
        else if (height > divergence * lowest)
            why = DIVERGED;
        if (why) {
            if (writes) {
                ended[image] = why;
                over[image] = step;
            }
            return;
        }
        const int from = place / pixels, pixel = place % pixels;
        taken = __fmul_rn(gain[from], value);
        beam += (long long)pair[from * layers + blockIdx.y] * extent * extent;
        down = extent / 2 - pixel / size;
        right = extent / 2 - pixel % size;
        if (writes) {
            least[odd * images + image] = fminf(lowest, height);
            if (height < lowest)
                best[image] = step;
            places[(long long)image * steps + step] = place;
            flux[(long long)image * steps + step] = taken;
            count[image] = step + 1;
        }
    }
    height = -1.0f;
    value = 0.0f;
    place = NOWHERE;
    float *mine = residual + ((long long)image * layers + blockIdx.y) * pixels;
    for (int p = blockIdx.x * THREADS + threadIdx.x; p < pixels;
         p += gridDim.x * THREADS) {
        const int y = p / size + down, x = p % size + right;
        float pixel = mine[p];
        if (step >= 0 && 0 <= y && y < extent && 0 <= x && x < extent) {
            pixel = __fsub_rn(pixel, __fmul_rn(taken, beam[y * extent + x]));
            mine[p] = pixel;
        }
        if (!has_mask || mask[p])
            keep(&height, &value, &place, is_signed ? pixel : fabsf(pixel), pixel,
                 blockIdx.y * pixels + p);
    }
    agree(heights, values, at, &height, &value, &place);
    if (threadIdx.x == 0) {
        const long long out = ((long long)odd * images + image) * peaks
            + blockIdx.y * gridDim.x + blockIdx.x;
        peak_value[out] = value;
        peak_place[out] = place;
    }
}

/* Subtract components, in their order, from all layers. Grid: blocks, layers. */
extern "C" __global__ void subtract(
    float *residual, const float *psf, const int *pair, const int *places,
    const float *flux, int size, int extent, int count)
{
    const int pixels = size * size, layers = gridDim.y;
    float *mine = residual + (long long)blockIdx.y * pixels;
    for (int p = blockIdx.x * THREADS + threadIdx.x; p < pixels;
         p += gridDim.x * THREADS) {
        float pixel = mine[p];
        for (int k = 0; k < count; k++) {
            const int from = places[k] / pixels, there = places[k] % pixels;
            const int y = p / size + extent / 2 - there / size;
            const int x = p % size + extent / 2 - there % size;
            if (0 <= y && y < extent && 0 <= x && x < extent) {
                const long long beam =
                    (long long)pair[from * layers + blockIdx.y] * extent * extent;
                pixel = __fsub_rn(
                    pixel, __fmul_rn(flux[k], psf[beam + y * extent + x]));
            }
        }
        mine[p] = pixel;
    }
}

/* Steps among listed pixels. One block; state: count, and whether the floor is reached
   after this launch. */
extern "C" __global__ void clark(
    float *listed, const int *y, const int *x, const float *psf, int *found,
    float *flux, int *state, int pixels, int extent, int until, float gain, float floor,
    int is_signed)
{
    __shared__ float heights[THREADS], values[THREADS];
    __shared__ int at[THREADS];
    int step = state[0], is_over = 0;
    for (; step < until; step++) {
        float height = -1.0f, value = 0.0f;
        int place = NOWHERE;
        for (int i = threadIdx.x; i < pixels; i += THREADS)
            keep(&height, &value, &place, is_signed ? listed[i] : fabsf(listed[i]),
                 listed[i], i);
        agree(heights, values, at, &height, &value, &place);
        if (height <= floor || height <= 0.0f) {
            is_over = 1;
            break;
        }
        const float taken = __fmul_rn(gain, value);
        if (threadIdx.x == 0) {
            found[step] = place;
            flux[step] = taken;
        }
        const int down = extent / 2 - y[place], right = extent / 2 - x[place];
        for (int i = threadIdx.x; i < pixels; i += THREADS) {
            const int row = y[i] + down, column = x[i] + right;
            if (0 <= row && row < extent && 0 <= column && column < extent)
                listed[i] = __fsub_rn(
                    listed[i],
                    __fmul_rn(taken, psf[(long long)row * extent + column]));
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        state[0] = step;
        state[1] = is_over;
    }
}
"""


@functools.cache
def _kernel(name: str) -> Callable[..., Any]:
    """Return a kernel of the current device, compiled when first used."""
    return _module().get_function(name)  # type: ignore[no-any-return]


@functools.cache
def _module() -> Any:
    cupy = library_of("cuda")
    return cupy.RawModule(code=SOURCE, options=(f"-DTHREADS={THREADS}",))


class DeviceBatch:
    """Hogbom's loop in several images of the same size at once.

    Parameters
    ----------
    psf : cupy.ndarray of float32, shape (image or 1, pair, n, n)
        Beams with their centres at n // 2; one set for all images, or one for each.
    pair : ndarray of int64, shape (layer, layer)
        Which beam a component of one layer leaves in another.
    gain : ndarray of float32, shape (layer,)
        Part of a peak that is taken away.
    mask : cupy.ndarray of bool, shape (N, N), or None
        Where components may be.
    negative : bool
        Whether components may be negative.
    divergence : float
        Stop at a peak so many times the least one; 0 for never.
    """

    def __init__(
        self,
        psf: Array,
        pair: NDArray[np.int64],
        gain: NDArray[np.float32],
        mask: Array | None,
        negative: bool,
        divergence: float,
    ) -> None:
        self._xp = library_of("cuda")
        self._psf = self._xp.ascontiguousarray(psf, dtype=np.float32)
        self._pair = self._xp.asarray(pair.astype(np.int32))
        self._gain = self._xp.asarray(gain)
        self._has_mask = mask is not None
        self._mask = self._xp.zeros(1, bool) if mask is None else mask
        self._mask = self._xp.ascontiguousarray(self._mask, dtype=bool).view(np.uint8)
        self._is_signed = not negative
        self._divergence = np.float32(divergence or np.inf)

    def find(
        self,
        images: Array,
        limits: NDArray[np.int64],
        floors: NDArray[np.float32],
        tell: Tell,
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32], Ended]]:
        """Find components, and subtract them.

        Parameters
        ----------
        images : cupy.ndarray of float32, shape (image, layer, N, N)
            Written to.
        limits : ndarray of int64, shape (image,)
            Components at most.
        floors : ndarray of float32, shape (image,)
            Peaks at which to stop.
        tell : callable
            Told the steps that are done.

        Returns
        -------
        list of tuple
            For each image layer, y and x (k, 3) and flux (k,) of components, and the
            end.
        """
        xp, (count, layers, size, _) = self._xp, images.shape
        steps = max(1, int(limits.max()))
        per_image = _RESIDENT // (count * layers)
        needed = -(-size * size // THREADS)
        blocks = min(max(per_image, _BLOCKS_AT_LEAST), _BLOCKS // layers, needed)
        peaks = (2, count, layers, blocks)
        state = xp.zeros((4, count), np.int32)
        state[3] = np.iinfo(np.int32).max
        places = xp.zeros((count, steps), np.int32)
        flux = xp.zeros((count, steps), np.float32)
        arguments = (
            images,
            self._psf,
            self._pair,
            self._mask,
            self._gain,
            xp.asarray(floors.astype(np.float32)),
            xp.asarray(limits.astype(np.int32)),
            xp.zeros(peaks, np.float32),
            xp.zeros(peaks, np.int32),
            xp.full((2, count), np.inf, np.float32),
            state[0],
            state[1],
            state[2],
            state[3],
            places,
            flux,
            self._divergence,
            np.int32(size),
            np.int32(self._psf.shape[-1]),
            np.int64(self._psf[0].size if len(self._psf) > 1 else 0),
            np.int32(steps),
            np.int32(self._has_mask),
            np.int32(self._is_signed),
        )
        step = _kernel("hogbom")
        # one more than there are steps: the last sees that there are enough
        for first in range(-1, steps + 1, LAUNCHES):
            for number in range(first, min(first + LAUNCHES, steps + 1)):
                step(
                    (blocks, layers, count), (THREADS,), (*arguments, np.int32(number))
                )
            best, ended, counts, _ = state.get()
            tell(int(counts.max()))
            if ended.all():
                break
        found = []
        for image, (place, taken) in enumerate(
            zip(places.get(), flux.get(), strict=True)
        ):
            n, reason = int(counts[image]), _ENDED[ended[image]]
            kept = int(best[image]) if reason == "diverged" else n
            back = slice(kept, n)
            self._subtract(images[image], image, place[back], -taken[back])
            layer, pixel = np.divmod(place[:kept].astype(np.int64), size * size)
            y, x = np.divmod(pixel, size)
            found.append((np.column_stack([layer, y, x]), taken[:kept], reason))
        return found

    def subtract(
        self, images: Array, places: NDArray[np.int64], flux: NDArray[np.float32]
    ) -> None:
        """Subtract components from one image.

        Parameters
        ----------
        images : cupy.ndarray of float32, shape (layer, N, N)
            Written to.
        places, flux : ndarray of int64 (k, 3) and float32 (k,)
            Layer, y and x of components, and their flux.
        """
        size = images.shape[1]
        flat = places @ np.array([size * size, size, 1])
        self._subtract(images, 0, flat.astype(np.int32), flux)

    def _subtract(
        self,
        images: Array,
        image: int,
        places: NDArray[np.int32],
        flux: NDArray[np.float32],
    ) -> None:
        if not len(flux):
            return
        layers, size = images.shape[:2]
        psf = self._psf[image if len(self._psf) > 1 else 0]
        _kernel("subtract")(
            (-(-size * size // THREADS), layers),
            (THREADS,),
            (
                images,
                psf,
                self._pair,
                self._xp.asarray(places),
                self._xp.asarray(flux),
                np.int32(size),
                np.int32(psf.shape[-1]),
                np.int32(len(flux)),
            ),
        )


class DeviceSearch:
    """The search in one image, as `TiledSearch` on a processor core.

    Parameters
    ----------
    psf : cupy.ndarray of float32, shape (pair, n, n)
        Beams; all else is as in `DeviceBatch`.
    """

    def __init__(
        self,
        psf: Array,
        pair: NDArray[np.int64],
        gain: NDArray[np.float32],
        mask: Array | None,
        negative: bool,
        divergence: float,
    ) -> None:
        self._batch = DeviceBatch(
            psf[np.newaxis], pair, gain, mask, negative, divergence
        )

    def start(self, images: Array) -> None:
        """Begin with other images, shape (layer, N, N), which are written to."""
        self.images = images

    def find(
        self, limit: int, floor: float, tell: Tell
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], Ended]:
        """Return layer, y and x (k, 3) and flux (k,) of components, and the end."""
        (found,) = self._batch.find(
            self.images[np.newaxis], np.array([limit]), np.array([single(floor)]), tell
        )
        return found

    def settle(self, tell: Tell) -> None:
        """Nothing is due: each step subtracts everywhere."""
        tell(0)

    def subtract(
        self, places: NDArray[np.int64], flux: NDArray[np.float32], tell: Tell
    ) -> None:
        """Subtract other components: layer, y and x (k, 3) and flux (k,)."""
        self._batch.subtract(self.images, places, flux)
        tell(0)


def device_loop(
    values: Array,
    y: Array,
    x: Array,
    psf: Array,
    limit: int,
    gain: np.float32,
    floor: np.float32,
    is_signed: bool,
    tell: Tell,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Take components away from a list of pixels; as `clark.host_loop`."""
    xp = library_of("cuda")
    listed = xp.stack([y, x]).astype(np.int32)
    found, flux = xp.zeros(limit, np.int32), xp.zeros(limit, np.float32)
    state = xp.zeros(2, np.int32)
    count = is_over = 0
    while count < limit and not is_over:
        _kernel("clark")(
            (1,),
            (THREADS,),
            (
                values,
                listed[0],
                listed[1],
                psf,
                found,
                flux,
                state,
                np.int32(len(values)),
                np.int32(psf.shape[-1]),
                np.int32(min(limit, count + LAUNCHES)),
                gain,
                floor,
                np.int32(is_signed),
            ),
        )
        count, is_over = (int(number) for number in state.get())
        tell(count)
    places = listed[:, found[:count]].T.get().astype(np.int64)
    return places, flux[:count].get()

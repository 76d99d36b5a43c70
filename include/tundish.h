/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TUNDISH_H
#define TUNDISH_H

/* Tundish moves model weights from storage to where they are computed with.
 *
 *   one call   tnd_load_file
 *   model      what the files hold: tensors, metadata, layers. Immutable once open.
 *   loader     ring, pool and threads. Long-lived: one loader serves many loads, several at once.
 *   load       one model on its way, or arrived.
 *   plan       what a load would read and take, told before it takes anything.
 *
 * Results    Functions that can fail return an int: 0 or a count, else a negative errno out of
 *            EINVAL the caller's mistake · EBADMSG malformed, cut or replaced file · ENOTSUP known but not handled ·
 *            EFBIG over a named limit · EIO device · ENOMEM · ENOSPC · ENODEV engine or device not to be had ·
 *            ENOENT no such file, or nothing in it to load · EACCES · ETIMEDOUT · ECANCELED · EAGAIN not yet.
 *            tnd_last_error() has the sentence: file, tensor, offset, expected and found.
 *            Output arguments (ret_…) are written on success only.
 * Options    Structs whose first member is their own size; a zero member means the default, NULL all defaults.
 * Threads    A model may be read from any number of threads. What a function says under Threads goes beyond that.
 * Units      _bytes, _count, _index, _ns say what they are. Shapes are outermost first, as in NumPy. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TND_VERSION_MAJOR 0
#define TND_VERSION_MINOR 1
#define TND_VERSION_PATCH 0

#if defined(TND_BUILD) && defined(__GNUC__)
#define TND_API __attribute__((visibility("default")))
#else
#define TND_API
#endif

struct tnd_model;
struct tnd_loader;
struct tnd_load;
struct tnd_plan;

/* ---- About ------------------------------------------------------------------------------------------------- */

/* "MAJOR.MINOR.PATCH" of the library that runs, which may be newer than this header. */
TND_API const char *tnd_version(void);

/* The name of a result, as in "EBADMSG: malformed file". Never NULL. */
TND_API const char *tnd_strerror(int result);

/* The sentence of the last call that failed on this thread; "" when none did.
 * Memory:   the library's, until the next failure on this thread. */
TND_API const char *tnd_last_error(void);

/* What this machine, this process and a model's files allow, found by trying. Texts end in a NUL; a reason is one
 * sentence, "" where nothing is refused. */
struct tnd_probe {
    size_t size; /* sizeof(struct tnd_probe), set before the call, which then writes no more than that */

    /* Machine and process. */
    char kernel[64];              /* its release */
    char huge_pages[16];          /* for anonymous memory: "always", "madvise", "never"; "" when the kernel has none */
    uint64_t huge_page_bytes;     /* 0: none */
    uint64_t memory_system_bytes; /* MemAvailable; UINT64_MAX when nothing says, as in the next two */
    uint64_t memory_cgroup_bytes; /* what the cgroup's limits leave; UINT64_MAX: no limit */
    uint64_t memlock_bytes;       /* RLIMIT_MEMLOCK; UINT64_MAX: no limit */
    uint32_t page_bytes;
    uint32_t cores;               /* that this process may run on */
    bool cpu_f16c, cpu_avx2, cpu_avx512f;

    /* io_uring: each step 0 or a negative errno, not tried behind the first that fails. */
    int32_t uring_disabled;       /* sysctl kernel.io_uring_disabled; -1: the kernel has no such */
    int32_t uring_setup;          /* making a ring */
    int32_t uring_enter;          /* a request there and back */
    int32_t uring_buffers;        /* registering buffers as a loader does, which saves some CPU time */
    uint64_t uring_buffer_bytes;  /* how many it took, of as many as a pool starts with */
    uint64_t uring_buffer_bytes_tried;
    char uring_reason[256];
    char uring_buffers_reason[256];

    /* The model's files, all 0 and "" without a path. Of several the largest stands for all, but in the cache. */
    char file[256];               /* the end of its path */
    char file_system[32];         /* by its name in /proc/self/mountinfo */
    uint64_t file_bytes;
    uint32_t file_count;
    uint32_t cached_percent;      /* of all files, in the page cache */
    bool direct_open;             /* O_DIRECT is taken at open … */
    bool direct;                  /* … and at the first read, with … */
    uint32_t direct_alignment_bytes; /* … this alignment; 0: none found */
    char direct_reason[384];
    char load_engine[16];         /* what a load with default options would do: "uring", "threads" */
    bool load_direct;
    char load_reason[384];        /* why not ring and direct I/O */
};

/* Fills *ret_probe. path: as for tnd_model_open(), or NULL for machine and process only. Takes some milliseconds and,
 * for that time, 16 MiB and a ring. What is refused is an answer, not a failure.
 * Returns:  0, -EINVAL size not set, -ENOMEM, else as tnd_model_open().
 * Threads:  any. */
TND_API int tnd_probe(const char *path, struct tnd_probe *ret_probe);

/* ---- Hooks ------------------------------------------------------------------------------------------------- */

/* The caller's memory for everything small that stays: catalogues, tables, handles. Reads go to large anonymous
 * mappings of the library's own, which plan and stats count. alloc returns memory aligned for any type, or NULL; free
 * takes what alloc gave, never NULL. Called from any thread. */
struct tnd_allocator {
    void *(*alloc)(void *cookie, size_t bytes);
    void (*free)(void *cookie, void *memory);
    void *cookie;
};

enum tnd_log_level { TND_LOG_ERROR = 1, TND_LOG_WARNING, TND_LOG_INFO, TND_LOG_DEBUG };

/* One line without its line feed. Called from any thread, never under a lock. */
typedef void (*tnd_log_fn)(void *cookie, enum tnd_log_level level, const char *line);

/* ---- Element types ----------------------------------------------------------------------------------------- */

/* Names are as the formats spell them: GGML's and safetensors'. */
enum tnd_dtype {
    TND_DTYPE_NONE, /* no type: never a tensor's */
    TND_F64, TND_F32, TND_F16, TND_BF16,
    TND_F8_E4M3, TND_F8_E5M2, TND_F8_E8M0, TND_F8_E4M3FNUZ, TND_F8_E5M2FNUZ,
    TND_F6_E2M3, TND_F6_E3M2, TND_F4,
    TND_I64, TND_I32, TND_I16, TND_I8, TND_U64, TND_U32, TND_U16, TND_U8, TND_BOOL, TND_C64,
    TND_Q4_0, TND_Q4_1, TND_Q5_0, TND_Q5_1, TND_Q8_0, TND_Q8_1,
    TND_Q2_K, TND_Q3_K, TND_Q4_K, TND_Q5_K, TND_Q6_K, TND_Q8_K,
    TND_IQ1_S, TND_IQ1_M, TND_IQ2_XXS, TND_IQ2_XS, TND_IQ2_S, TND_IQ3_XXS, TND_IQ3_S, TND_IQ4_NL, TND_IQ4_XS,
    TND_TQ1_0, TND_TQ2_0, TND_MXFP4, TND_NVFP4, TND_Q1_0, TND_Q2_0,
    TND_DTYPE_COUNT
};

/* A type's name, "?" outside the list. */
TND_API const char *tnd_dtype_name(enum tnd_dtype dtype);

/* The smallest run of elements that fills whole bytes: 1 element of 2 bytes for F16, 32 of 18 for Q4_0, 4 of 3 for
 * F6_E2M3. Returns 0, or -EINVAL outside the list. */
TND_API int tnd_dtype_block(enum tnd_dtype dtype, uint32_t *ret_elements, uint32_t *ret_bytes);

/* ---- Model ------------------------------------------------------------------------------------------------- */

/* Where in the order of use a tensor stands. */
enum tnd_role { TND_SHARED_IN, TND_IN_LAYER, TND_SHARED_OUT };

struct tnd_tensor {
    const char *name; /* NUL-terminated UTF-8; name_bytes counts without the NUL, which safetensors lets stand inside */
    size_t name_bytes;
    enum tnd_dtype dtype;
    enum tnd_role role;
    int32_t layer;    /* -1 for the shared ones: embeddings, final norm, head */
    uint32_t dims;    /* 0 for a scalar */
    const uint64_t *shape; /* [dims], outermost first, in elements */
    uint64_t elements;
    uint64_t bytes;   /* as they lie in the file */
    uint32_t file;    /* tnd_model_file() */
    uint64_t offset;  /* from the start of that file */
};

struct tnd_file {
    const char *path; /* as opened */
    uint64_t bytes;
};

/* GGUF's value types, by GGUF's numbers. safetensors' metadata are strings. */
enum tnd_value_type {
    TND_VALUE_U8, TND_VALUE_I8, TND_VALUE_U16, TND_VALUE_I16, TND_VALUE_U32, TND_VALUE_I32, TND_VALUE_F32,
    TND_VALUE_BOOL, TND_VALUE_STRING, TND_VALUE_ARRAY, TND_VALUE_U64, TND_VALUE_I64, TND_VALUE_F64,
    TND_VALUE_TYPE_COUNT
};

struct tnd_value {
    enum tnd_value_type type;
    union {
        uint64_t u; /* U8 … U64 */
        int64_t i;  /* I8 … I64 */
        double f;   /* F32, F64 */
        bool b;
        struct {
            const char *data; /* any bytes, not NUL-terminated */
            size_t bytes;
        } string;
        struct {
            enum tnd_value_type type; /* of the elements */
            uint64_t count;
            const uint8_t *data;
        } array;
    } as;
};

struct tnd_meta {
    const char *key; /* NUL-terminated UTF-8 */
    size_t key_bytes;
    struct tnd_value value;
};

struct tnd_model_options {
    size_t size; /* sizeof(struct tnd_model_options) */
    const struct tnd_allocator *allocator; /* copied */
    tnd_log_fn log;
    void *log_cookie;
};

/* Opens a model and reads its headers; no tensor data. path: a .gguf file, or any part of a split one
 * (-00001-of-00003.gguf: all are opened); a .safetensors file; a .safetensors.index.json with its shards beside it; a
 * folder that holds one model. Links are followed. The files stay open until the model is closed, so that a load reads
 * what was looked at.
 * Returns:  0, -ENOENT, -EACCES, -EBADMSG malformed, -ENOTSUP big-endian or version 1, -EFBIG, -EIO, -ENOMEM. */
TND_API int tnd_model_open(const char *path, const struct tnd_model_options *options, struct tnd_model **ret_model);

/* Closes and sets *model to NULL; takes NULL. No load of it may be left. */
TND_API void tnd_model_close(struct tnd_model **model);

/* "GGUF v3", "safetensors". Memory: the model's. */
TND_API const char *tnd_model_format(const struct tnd_model *model);

/* Bytes of all tensors, as they lie in the files. */
TND_API uint64_t tnd_model_bytes(const struct tnd_model *model);

TND_API uint32_t tnd_model_file_count(const struct tnd_model *model);
/* NULL beyond the last. Memory: the model's. */
TND_API const struct tnd_file *tnd_model_file(const struct tnd_model *model, uint32_t file_index);

/* Tensors in the order of the file's own list. */
TND_API uint32_t tnd_model_tensor_count(const struct tnd_model *model);
/* NULL beyond the last. Memory: the model's. */
TND_API const struct tnd_tensor *tnd_model_tensor(const struct tnd_model *model, uint32_t tensor_index);
/* The index of the tensor of that name, or -ENOENT, which sets no sentence. */
TND_API int64_t tnd_model_tensor_find(const struct tnd_model *model, const char *name);

TND_API uint32_t tnd_model_meta_count(const struct tnd_model *model);
/* NULL beyond the last. Memory: the model's. */
TND_API const struct tnd_meta *tnd_model_meta(const struct tnd_model *model, uint32_t meta_index);
/* NULL when there is no such key. */
TND_API const struct tnd_meta *tnd_model_meta_find(const struct tnd_model *model, const char *key);

/* Takes the first element off an array: *ret_item gets it, *array becomes the rest. An item that is an array itself is
 * walked the same way. Returns 1, or 0 when the array is empty or the value no array. */
TND_API int tnd_value_next(struct tnd_value *array, struct tnd_value *ret_item);

/* One more than the highest layer number in a tensor's name; 0 when no name has one. */
TND_API uint32_t tnd_model_layer_count(const struct tnd_model *model);

/* ---- Loader ------------------------------------------------------------------------------------------------ */

enum tnd_switch { TND_AUTO, TND_ON, TND_OFF };

enum tnd_engine {
    TND_ENGINE_AUTO,    /* the ring, threads where it is refused or slower */
    TND_ENGINE_URING,   /* -ENODEV where the kernel refuses it */
    TND_ENGINE_THREADS, /* preadv on a few threads */
    TND_ENGINE_MMAP, /* tensors are the mapped file itself, no copy: right for cached files. Ready when all of its pages
                        were there; a file that is cut after that is a SIGBUS at the next touch of what is gone.
                        Read-only. A tensor whose offset does not suit its element is copied. To a GPU the file is
                        read out of the page cache, and nothing stays mapped. -ENODEV before 5.14 */
    TND_ENGINE_NIL,  /* completes at once and reads nothing: measures everything but the disk. Tensors hold garbage */
};

/* Where all loads of a loader end. */
enum tnd_device_choice {
    TND_DEVICE_HOST,
    TND_DEVICE_AUTO, /* the GPU cuda_ordinal if it can be used, else the host, which is told among the load's reasons.
                        Which one it is has to be known first: tnd_load_start() waits for the GPU's start-up. Not with
                        place(): -EINVAL */
    TND_DEVICE_CUDA, /* the GPU cuda_ordinal: -ENODEV where there is none. It starts up while reads are under way */
};

/* How the buffers that a GPU copies from are kept in place. */
enum tnd_pinning {
    TND_PIN_AUTO,     /* as TND_PIN_REGISTER, until measurements say otherwise; the next one where it is refused */
    TND_PIN_REGISTER, /* cudaHostRegister() of the pool's own pages, which are read into before the GPU has started */
    TND_PIN_ALLOC,    /* cudaHostAlloc(): reads begin once the GPU has started */
    TND_PIN_OFF,      /* not at all: slower */
};

/* What a stage did, told when it is over. */
enum tnd_trace_kind {
    TND_TRACE_READ,    /* a window, from its submission until its bytes were there */
    TND_TRACE_COPY,    /* a worker took a window's pieces to their places, and made their digests if asked to */
    TND_TRACE_CONVERT, /* the same, converting some or all of them */
    TND_TRACE_DIGEST,  /* a worker made digests of a window that had landed in its place */
    TND_TRACE_TOUCH,   /* a worker brought in destination memory */
    TND_TRACE_FETCH,   /* a layer of a lazy load or a window, from its first read until it was there */
    TND_TRACE_EVICT,   /* a layer lost its place to another: a moment */
    TND_TRACE_UPLOAD,  /* a device took a window's pieces to their places, from when it was given them until it was
                          seen to be done */
};

struct tnd_trace_event {
    enum tnd_trace_kind kind;
    enum tnd_engine engine;  /* of a read; else TND_ENGINE_AUTO */
    uint32_t slot;           /* the chunk, from 0; of a layer its place in the window; else UINT32_MAX */
    uint32_t worker;         /* from 0; UINT32_MAX for reads, uploads and layers */
    uint64_t start_ns, end_ns; /* CLOCK_MONOTONIC */
    uint64_t offset, bytes;  /* in the file, for touching in the destination; of a layer its bytes in the file */
    const struct tnd_tensor *tensor; /* the first of the window or layer; NULL for touching. Memory: the model's */
};

/* Called on the loader's threads, on several at once, never under a lock; what it takes, the load takes longer. */
typedef void (*tnd_trace_fn)(void *cookie, const struct tnd_trace_event *event);

struct tnd_loader_options {
    size_t size; /* sizeof(struct tnd_loader_options) */
    enum tnd_engine engine;
    enum tnd_switch direct;  /* O_DIRECT; auto: yes unless most of the file is cached or the file system is no use, or a
                                window, whose layers will be read again, is of a file that fits the page cache */
    uint32_t chunk_bytes;    /* longest read; a power of two, 64 KiB … 64 MiB; 0 = 2 MiB */
    uint32_t depth; /* reads in flight, at most 256; 0 = 8 MiB of them, at least 4, and more if that is faster */
    uint64_t pool_bytes_max; /* buffers that reads land in; 0 = 128 MiB. At least one chunk */
    uint32_t thread_count;   /* workers that copy and touch memory; 0 = one a core, at most 8 */
    uint64_t memory_bytes_max; /* refuse a load that would take all loads of this loader, with the pool, over it;
                                  0 = what the system and the cgroup have left */
    uint64_t read_timeout_ns; /* a load none of whose reads comes back for so long, and a second more, ends with -EIO;
                                 0 = 30 s. A read cannot be taken back: what it may yet write to is never freed */
    bool foreground;         /* no driver thread: the first thread that steps it or waits for a load of it drives */
    const struct tnd_allocator *allocator; /* copied */
    tnd_log_fn log;
    void *log_cookie;
    tnd_trace_fn trace; /* NULL: nothing is told */
    void *trace_cookie;
    enum tnd_device_choice device;
    uint32_t cuda_ordinal; /* as CUDA counts them; no other GPU is touched */
    uint32_t stream_count; /* CUDA streams that convert, beside one that copies; at most 8; 0 = 2 */
    enum tnd_pinning pinning;
};

/* Starts ring, pool and threads. Buffers are touched when a load first needs them and serve all loads after it. A GPU
 * is started on a thread of its own; a foreground loader makes it the current one of the thread that drives it.
 * Returns:  0, -EINVAL, -ENODEV engine or GPU demanded but refused (a foreground loader says so of the engine when it
 *           is first stepped; a GPU that turns out not to start ends its loads with this), -ENOMEM. */
TND_API int tnd_loader_create(const struct tnd_loader_options *options, struct tnd_loader **ret_loader);

/* Ends the threads, frees, sets *loader to NULL; takes NULL. Every load of it must have been destroyed. */
TND_API void tnd_loader_destroy(struct tnd_loader **loader);

/* Drives a foreground loader: one turn of the pipeline, waits until something happened or the time is over, and sends
 * the next reads. timeout_ns: 0 = do not wait, < 0 = no limit.
 * Returns:  1 something moved, 0 nothing did (with a GPU it may say so before the time is over), -EINVAL not a
 *           foreground loader or not the thread that drives it; on the first call, which sets up ring and pool, -ENODEV
 *           and -ENOMEM too: loads started before end with that.
 * Threads:  the first thread that steps or waits, from then on only that one. */
TND_API int tnd_loader_step(struct tnd_loader *loader, int64_t timeout_ns);

/* ---- Load -------------------------------------------------------------------------------------------------- */

enum tnd_order {
    TND_ORDER_USE,  /* embeddings, layer 0, 1, …, final norm and head: what is used first arrives first */
    TND_ORDER_FILE, /* as the bytes lie, for disks that care */
};

enum tnd_digest {
    TND_DIGEST_OFF,
    TND_DIGEST_XXH3, /* XXH3 of 64 bits, seed 0, of each tensor's bytes as they lie at their destination */
};

enum tnd_lazy {
    TND_LAZY_OFF,        /* all of it is read at once, in order */
    TND_LAZY_BACKGROUND, /* the same, layer by layer: one that is acquired, waited for or prefetched comes first */
    TND_LAZY_DEMAND,     /* shared-in and the first layer; of the others what is acquired, waited for or prefetched,
                            and what is ahead of that. tnd_load_wait() asks for all */
};

/* The tensors of no layer, where a layer's number is asked for. */
#define TND_LAYER_SHARED_IN (-1)
#define TND_LAYER_SHARED_OUT (-2)

#define TND_AHEAD_NONE UINT32_MAX

/* Names and what they become. dtype: TND_F32, TND_F16, TND_BF16, or TND_DTYPE_NONE for as it is in the file. */
struct tnd_dtype_rule {
    const char *pattern; /* fnmatch, no flags */
    enum tnd_dtype dtype;
};

/* Gives the memory of a tensor's bytes: tensor->bytes of them, aligned to its element at least. The tensor is told as
 * it will lie: dtype and bytes after conversion. The memory stays the caller's, and untouched by others until the load
 * has ended. NULL = the loader allocates this one. Of a
 * loader whose device is a GPU: memory of that GPU.
 * Called in tnd_load_start(), on its thread. */
typedef void *(*tnd_place_fn)(void *cookie, const struct tnd_tensor *tensor);

struct tnd_load_options {
    size_t size; /* sizeof(struct tnd_load_options) */
    enum tnd_order order;
    const char *only;     /* a shell pattern over tensor names (fnmatch, no flags); NULL = all */
    uint32_t layer_first; /* with layer_count > 0: only the tensors of the layers [first, first + count) */
    uint32_t layer_count;
    enum tnd_dtype dtype; /* what tensors become on their way: TND_F32, TND_F16 or TND_BF16; TND_DTYPE_NONE = what they
                             are. Floating-point and GGML block types are converted, with one rounding to nearest even
                             and the canonical NaN; others (integers, floats of 8 bits but F8_E4M3 and F8_E5M2, and
                             smaller ones of safetensors) stay as they are */
    const struct tnd_dtype_rule *rules; /* [rule_count] the first that fits a name comes before dtype */
    uint32_t rule_count;
    enum tnd_switch in_place; /* reads land where the tensor will lie (on), or go through the pool and are copied out
                                 past the cache (off); auto measures both on the first large load and keeps the faster.
                                 Tensors whose offset does not suit go through the pool either way; what comes out of
                                 the page cache is copied to its place without the pool */
    enum tnd_digest digest; /* made in passing: tnd_load_tensor_digest(). Not with TND_ENGINE_MMAP, nor of a load that
                               is lazy or has a window: -EINVAL */
    tnd_place_fn place;
    void *place_cookie;

    /* Layers: below. A load that is lazy or has a window goes in TND_ORDER_USE: else -EINVAL. */
    enum tnd_lazy lazy;
    uint64_t resident_bytes; /* layers lie in a window of so many bytes, and come and go; the shared tensors lie beside
                                it and stay. At least the largest layer and one chunk, else -ENOMEM with the sums. 0, or
                                no less than all layers take: all of them stay. Not with place(), tnd_load_file() or
                                digests, however large it is */
    const uint32_t *layer_order; /* [layer_order_count] in which layers are acquired, over and over; NULL and 0: 0, 1,
                                    … */
    uint32_t layer_order_count;
    uint32_t ahead; /* with a window or TND_LAZY_DEMAND, layers to fetch ahead of the one that was acquired: 0 = 2, in a
                       window where reading takes longer than computing as many more as keep both busy; TND_AHEAD_NONE =
                       none. At most what the window has room for beside that one */
};

/* One call: opens the model, loads it into host memory, returns when it is all there. The load owns model and loader.
 * Returns:  as tnd_model_open() and tnd_load_wait(). */
TND_API int tnd_load_file(const char *path, const struct tnd_load_options *options, struct tnd_load **ret_load);

/* Plans, takes the destination, starts. The model must outlive the load, options need not.
 * Returns:  0, -EINVAL, -ENOENT no tensor is selected, -EFBIG more reads than a plan holds, -ENOMEM, also when the
 *           budget does not suffice. */
TND_API int tnd_load_start(struct tnd_loader *loader, const struct tnd_model *model,
                           const struct tnd_load_options *options, struct tnd_load **ret_load);

/* Waits for the whole load, one tensor, or a layer (or TND_LAYER_SHARED_IN, …). Of a lazy load these ask for what they
 * wait for, also where they do not wait. With a window the layers' tensors are acquired, not waited for, and there is
 * no whole: -EINVAL.
 * timeout_ns: 0 = do not wait, < 0 = no limit.
 * Returns:  0 arrived, -EAGAIN not yet (timeout 0), -ETIMEDOUT, -EINVAL no such tensor or layer in this load, of a lazy
 *           load what failed, which may be asked for again, else what ended the load: -ECANCELED, -EIO, -EBADMSG
 *           file cut or replaced, -ENOMEM, -ENODEV engine or direct I/O demanded but refused. tnd_load_wait() answers
 *           -EAGAIN while reads or copies of a failed load are still on their way. -EAGAIN and -ETIMEDOUT set no
 *           sentence.
 * Threads:  any. On the thread that drives a foreground loader these step it. */
TND_API int tnd_load_wait(struct tnd_load *load, int64_t timeout_ns);
TND_API int tnd_load_wait_tensor(struct tnd_load *load, uint32_t tensor_index, int64_t timeout_ns);
TND_API int tnd_load_wait_layer(struct tnd_load *load, int32_t layer, int64_t timeout_ns);

/* Stops submitting; what is in flight is drained. Returns at once; tnd_load_wait() tells when it is over.
 * Threads:  any. */
TND_API void tnd_load_cancel(struct tnd_load *load);

/* Cancels if need be, waits until nothing can write to its memory any more, frees, sets *load to NULL; takes NULL. */
TND_API void tnd_load_destroy(struct tnd_load **load);

/* A tensor's bytes in host memory, or in the memory of the device that the load ended on.
 * Returns:  0, -EAGAIN not there yet, -EINVAL not part of this load, or of a window and not acquired, or what ended
 *           the load.
 * Memory:   the load's, or what place() gave; of a layer in a window until it is released. On a GPU NULL where a tensor
 *           has no bytes and place() gave none: it is there before the GPU is.
 * Threads:  any. */
TND_API int tnd_load_tensor_data(struct tnd_load *load, uint32_t tensor_index, const void **ret_data);

/* A tensor's type and bytes as it lies, or will lie, in memory. -EINVAL no such tensor. Threads: any. */
TND_API int tnd_load_tensor_type(struct tnd_load *load, uint32_t tensor_index, enum tnd_dtype *ret_dtype,
                                 uint64_t *ret_bytes);

/* A tensor's digest, of a load that makes them, once all of the load has arrived.
 * Returns:  0, -EAGAIN not yet, -EINVAL no digests or not part of this load, or what ended the load.
 * Threads:  any. */
TND_API int tnd_load_tensor_digest(struct tnd_load *load, uint32_t tensor_index, uint64_t *ret_digest);

/* Copies bytes of a tensor that has arrived, from wherever they lie, to host memory.
 * Returns:  0, -EINVAL out of the tensor, else as tnd_load_tensor_data(). Threads: any. */
TND_API int tnd_load_tensor_read(struct tnd_load *load, uint32_t tensor_index, uint64_t offset_bytes, void *buffer,
                                 size_t bytes);

/* Readable when a layer became ready or the load ended, since it was last read: an eventfd, read 8 bytes to clear.
 * Shared-in and shared-out count as layers. It stays the load's: do not close it. Returns the descriptor, or -ENOMEM.
 * Threads: any. */
TND_API int tnd_load_event_fd(struct tnd_load *load);

struct tnd_progress {
    uint64_t bytes_ready; /* of bytes */
    uint64_t bytes;
    uint32_t tensors_ready; /* of tensors */
    uint32_t tensors;
    uint64_t elapsed_ns; /* since tnd_load_start(); stands still once the load has ended */
    bool ended;
};
TND_API void tnd_load_progress(struct tnd_load *load, struct tnd_progress *ret_progress); /* any thread */

/* TND_LIMIT_H2D: a device, from its start-up on; in what proportion tell h2d_busy_ns and ready_ns. */
enum tnd_limit { TND_LIMIT_DISK, TND_LIMIT_COPY, TND_LIMIT_CONVERT, TND_LIMIT_MEMORY, TND_LIMIT_H2D };

/* Times are wall time unless said; a stage's busy time sums over its threads. */
struct tnd_load_stats {
    uint64_t model_bytes;  /* of the tensors asked for */
    uint64_t bytes_read;   /* from the files: with what alignment adds */
    uint64_t read_count;
    uint64_t pool_bytes_read; /* of bytes_read: through the pool, the rest in place */
    uint64_t open_ns, plan_ns, setup_ns; /* model, plan and destination, loader */
    uint64_t first_layer_ns; /* tnd_load_start() → shared-in and the first layer in the order are there, told from then
                                on; 0: not yet, or never */
    uint64_t ready_ns;       /* tnd_load_start() → all is there */
    uint64_t read_busy_ns;   /* at least one read was in flight */
    uint64_t copy_busy_ns;   /* copying pool → destination, all workers */
    uint64_t convert_busy_ns; /* converting pool → destination, all workers */
    uint64_t digest_busy_ns; /* making digests, all workers */
    uint64_t h2d_busy_ns;  /* a device had at least one window to copy or convert */
    uint64_t converted_bytes; /* as they lay in the file */
    uint64_t overflowed;     /* values that the narrower type could not hold: finite ones that became infinite, */
    uint64_t underflowed;    /* and others than zero that became zero */
    uint64_t alloc_ns;       /* touching destination memory ahead of the reads, all workers */
    uint64_t overlap_ns;     /* reads were in flight while a chunk was being worked */
    uint64_t peak_host_bytes; /* destination (not the caller's) and pool */
    uint64_t destination_bytes; /* of the host; 0 on a device */
    uint64_t pool_bytes;
    uint32_t tensors, layers;
    uint32_t depth_max;      /* reads in flight at the most */
    uint32_t retries;        /* short reads continued, EAGAIN repeated */
    uint32_t reads_given_up; /* did not come back in read_timeout_ns. When not 0, memory that place() gave may be
                                written to at any time to come, and the load's own is leaked on purpose. A model is
                                best kept open then: the reads are of its descriptors */
    bool direct;             /* most bytes came past the page cache */
    const char *engine;      /* of most bytes: "uring", "threads", "mmap", "nil"; "none" when nothing was read */
    enum tnd_limit limit;    /* what took longest */
    char device[16];         /* "host", "cuda:0", … */
    uint64_t device_bytes;   /* of the device, for tensors (not the caller's); 0 on the host */
    uint64_t tile_bytes;     /* of the device, that the loader converts in */
    uint64_t peak_pinned_bytes; /* of the pool */
};
TND_API void tnd_load_stats(struct tnd_load *load, struct tnd_load_stats *ret_stats); /* any thread; whole once ended */

/* Why the load went the way it went: each step down from the ring or from direct I/O, in its own words.
 * NULL beyond the last. Memory: the load's. Threads: any, once the load has ended; one with a window has when it was
 * canceled and waited for. */
TND_API const char *tnd_load_reason(struct tnd_load *load, uint32_t reason_index);

/* The sentence that ended the load, "" while it goes well. Memory: the load's. Threads: any. */
TND_API const char *tnd_load_error(struct tnd_load *load);

TND_API const struct tnd_model *tnd_load_model(const struct tnd_load *load);

/* ---- Layers ------------------------------------------------------------------------------------------------ */

/* A consumer takes the layers in turn, over and over (a token's pass through the model), and says which it uses. With a
 * window they come and go: what is ahead of the consumer is fetched while it computes, into the places of the layers
 * whose next use is farthest, never of one that is acquired or pinned. Without one they only arrive. A child that is
 * forked before the load has ended does not see its memory. */

/* Takes a layer, or TND_LAYER_SHARED_IN or _OUT, for use: until its release its tensors stay where they are. As often
 * as one likes, by several threads. What is not there is asked for, and comes before all else.
 * timeout_ns: 0 = do not wait, < 0 = no limit. While others hold the whole window, it waits for a release.
 * Returns:  0, -EAGAIN not yet (timeout 0), -ETIMEDOUT, -EINVAL no such layer in this load, or no room because all of
 *           the window is pinned; the reading of this layer failed: -EIO, -EBADMSG, …, another try may succeed; else
 *           what ended the load. -EAGAIN and -ETIMEDOUT set no sentence.
 * Threads:  any. On the thread that drives a foreground loader it steps it. */
TND_API int tnd_layer_acquire(struct tnd_load *load, int32_t layer, int64_t timeout_ns);

/* Gives one acquire back. -EINVAL when there was none. Threads: any. */
TND_API int tnd_layer_release(struct tnd_load *load, int32_t layer);

/* A pinned layer stays once it is there, acquired or not; it is not fetched for that. -EINVAL no such layer.
 * Threads: any. */
TND_API int tnd_layer_pin(struct tnd_load *load, int32_t layer, bool pinned);

/* A hint: this layer will be acquired soon. It is fetched behind what somebody asked for and before what comes next in
 * the order, and kept until it was acquired, or as many others as the order has. Of a load that is not lazy and has no
 * window it changes nothing: all is on its way. 0, or -EINVAL no such layer. Threads: any. */
TND_API int tnd_load_prefetch(struct tnd_load *load, int32_t layer);

struct tnd_layer_stats {
    uint64_t acquires;   /* of layers, not of the shared tensors; those that failed are not counted */
    uint64_t hits;       /* it was there */
    uint64_t late_hits;  /* its fetch ahead was under way, and was waited for */
    uint64_t sync_loads; /* it was fetched because of the acquire, or is the first one, and was waited for */
    uint64_t stalled_ns; /* waited for in all, where it was polled for from the first -EAGAIN on; stalls are late hits
                            and synchronous loads */
    uint64_t fetches;    /* layers brought in, shared tensors too */
    uint64_t bytes_fetched; /* as they lie in the file */
    uint64_t bytes_reread;  /* of bytes_fetched: of layers that had been there before */
    uint64_t resident_bytes; /* the window; 0 without one */
    uint64_t shared_bytes;   /* beside it */
    uint32_t resident_layers; /* as many fit the window; all of them without one */
    uint32_t layers;
    uint32_t ahead;          /* layers fetched ahead now */
};
TND_API void tnd_layer_stats(struct tnd_load *load, struct tnd_layer_stats *ret_stats); /* any thread */

/* ---- Plan -------------------------------------------------------------------------------------------------- */

/* One read: a stretch of a file, aligned to 4096 bytes, and the pieces of tensors inside it. */
struct tnd_window {
    uint64_t offset;
    uint32_t bytes; /* a multiple of the alignment; the file may end before it */
    uint32_t file;
    uint32_t piece_first, piece_count; /* tnd_plan_piece(), in ascending window_offset */
};

struct tnd_piece {
    uint32_t tensor;
    uint32_t window_offset; /* where in the window */
    uint64_t tensor_offset; /* where in the tensor as the file has it */
    uint32_t bytes;
};

struct tnd_plan_sizes {
    uint64_t tensor_bytes;  /* asked for, as they lie in the files */
    uint64_t loaded_bytes;  /* as they will lie in memory */
    uint64_t converted_bytes; /* of tensor_bytes */
    uint64_t read_bytes;
    uint64_t destination_bytes; /* memory for the tensors that place() does not take; of the GPU with TND_DEVICE_CUDA */
    uint64_t shared_bytes;      /* of loaded_bytes: of no layer */
    uint64_t layer_bytes_max;   /* the largest layer in memory; with a window, with what its alignment adds */
    uint64_t resident_bytes;    /* the window: as often layer_bytes_max as there is room for; 0 without one. Part of
                                   destination_bytes but where layers are the mapped file itself */
    uint32_t resident_layers;   /* as many fit it; all without one */
    uint64_t pool_bytes;        /* buffers at the start; may grow to the loader's limit */
    uint64_t available_bytes;   /* what the system, the cgroup and memory_bytes_max leave */
    uint32_t window_count, piece_count, tensor_count, layer_count;
};

/* Pure: the same model and options give the same plan; no file is touched. loader_options and load_options as for the
 * load that it stands for. Returns 0, -EINVAL, -ENOENT no tensor is selected, -EFBIG, -ENOMEM. */
TND_API int tnd_plan_create(const struct tnd_model *model, const struct tnd_loader_options *loader_options,
                            const struct tnd_load_options *load_options, struct tnd_plan **ret_plan);
TND_API void tnd_plan_destroy(struct tnd_plan **plan);
/* A tensor's type and bytes as it would lie in memory. -EINVAL no such tensor; sets no sentence. */
TND_API int tnd_plan_tensor_type(const struct tnd_plan *plan, uint32_t tensor_index, enum tnd_dtype *ret_dtype,
                                 uint64_t *ret_bytes);
TND_API void tnd_plan_sizes(const struct tnd_plan *plan, struct tnd_plan_sizes *ret_sizes);
/* In the order they are read, a lazy load or a window apart, which reads first what is asked for; NULL beyond the last.
 * Memory: the plan's. */
TND_API const struct tnd_window *tnd_plan_window(const struct tnd_plan *plan, uint32_t window_index);
TND_API const struct tnd_piece *tnd_plan_piece(const struct tnd_plan *plan, uint32_t piece_index);

#ifdef __cplusplus
}
#endif
#endif

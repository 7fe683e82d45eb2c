/* libnvidia-ml.so.1 of nodes whose GPUs are virtual: what monitors ask NVML, from the node's ledger.
 *
 * The ledger's layout is that of gpu_ledger.py. What only a chip has (temperature, clocks, fans,
 * ECC) is "Not Supported", as in a virtual machine that has a part of a GPU; functions that are not
 * here are "Function Not Found" to their callers. Utilization is told as gpu_activity.py tells it.
 *
 * Linked without any library, so that it loads in images of every C library: what it calls is in
 * the process already. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h> /* getenv */
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default"))) int
#define LEN(array) (sizeof(array) / sizeof *(array))

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NO_PERMISSION = 4,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    VERSION_MISMATCH = 25,
};

/* -- the ledger ------------------------------------------------------------------------------- */
#define MAX_GPUS 8
#define MAX_ROWS 256
#define GPUS_AT 256
#define ROWS_AT 4096
#define LEDGER_SIZE (ROWS_AT + MAX_ROWS * sizeof(struct row))

struct header {
    char magic[8];
    unsigned count, highest;
    char driver[32], cuda[16], node[64];
};

struct gpu {
    char name[96], uuid[48], bus_id[32];
    unsigned long long memory;
    unsigned sms;
    unsigned short major, minor;
    unsigned long long peak, context;
    unsigned power_w, reserved;
    char rest[256 - 216];
};

struct row {
    long long pid;
    int rank, local_rank, collective;
    unsigned visible, used, reserved;
    long long bytes[MAX_GPUS], peaks[MAX_GPUS];
    char name[32];
};

_Static_assert(sizeof(struct gpu) == 256 && sizeof(struct row) == 192, "as gpu_ledger.py has it");

/* A handle is the address of one of these. */
typedef const struct device {
    unsigned number;
} *device_t;

static struct device devices[MAX_GPUS] = {{0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}};
static const char *ledger;
static int file = -1;
static unsigned users; /* calls of nvmlInit without their nvmlShutdown */
static int lock;

static void enter(void) {
    struct timespec nap = {0, 100000};
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) nanosleep(&nap, NULL);
}

static int leave(int result) {
    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
    return result;
}

static const struct header *header(void) { return (const struct header *)ledger; }

static const struct gpu *gpu(device_t device) {
    return (const struct gpu *)(ledger + GPUS_AT) + device->number;
}

static const struct row *row(unsigned number) {
    return (const struct row *)(ledger + ROWS_AT) + number;
}

static unsigned highest(void) {
    unsigned rows = __atomic_load_n(&header()->highest, __ATOMIC_RELAXED);
    return rows < MAX_ROWS ? rows : MAX_ROWS;
}

static long long taken(unsigned number, unsigned of) {
    return __atomic_load_n(&row(number)->bytes[of], __ATOMIC_RELAXED);
}

/* Whether the row's process is alive, and has put anything on the GPU. */
static int uses(unsigned number, unsigned of) {
    struct flock held = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    held.l_start = ROWS_AT + (long)(number * sizeof(struct row));
    if (!(__atomic_load_n(&row(number)->used, __ATOMIC_RELAXED) & 1u << of)) return 0;
    return fcntl(file, F_OFD_GETLK, &held) != 0 || held.l_type != F_UNLCK;
}

static unsigned long long used(device_t device) {
    unsigned long long sum = 0;
    for (unsigned i = 0; i < highest(); i++)
        if (uses(i, device->number)) sum += (unsigned long long)taken(i, device->number);
    return sum;
}

static int known(device_t device) {
    if (users == 0) return UNINITIALIZED;
    if (device < devices || device >= devices + header()->count) return INVALID_ARGUMENT;
    return SUCCESS;
}

#define NEED_INIT \
    if (users == 0) return UNINITIALIZED
#define NEED(device, pointer)                              \
    do {                                                   \
        int problem_ = known(device);                      \
        if (problem_ != SUCCESS) return problem_;          \
        if ((pointer) == NULL) return INVALID_ARGUMENT;    \
    } while (0)

static int copy(char *to, unsigned size, const char *text) {
    size_t length = strlen(text) + 1;
    if (to == NULL) return INVALID_ARGUMENT;
    if (length > size) return INSUFFICIENT_SIZE;
    memcpy(to, text, length);
    return SUCCESS;
}

/* Not atol, which glibc 2.38 and later call by a name that older ones do not have. */
static long decimal(const char *text) {
    long value = 0;
    for (; *text >= '0' && *text <= '9'; text++) value = value * 10 + (*text - '0');
    return value;
}

/* -- the library and the driver --------------------------------------------------------------- */
static int map(void) {
    const char *path = getenv("SIMGRID_ML_GPU_LEDGER");
    if (path == NULL || (file = open(path, O_RDONLY | O_CLOEXEC)) < 0) return DRIVER_NOT_LOADED;
    if (lseek(file, 0, SEEK_END) == (off_t)LEDGER_SIZE) {
        void *at = mmap(NULL, LEDGER_SIZE, PROT_READ, MAP_SHARED, file, 0);
        ledger = at == MAP_FAILED ? NULL : at;
        if (ledger != NULL && !memcmp(header()->magic, "SGMLGPU1", 8)
            && header()->count <= MAX_GPUS)
            return SUCCESS;
        if (ledger != NULL) munmap((void *)ledger, LEDGER_SIZE);
    }
    close(file);
    return DRIVER_NOT_LOADED;
}

API nvmlInitWithFlags(unsigned flags) {
    int result = SUCCESS;
    (void)flags;
    enter();
    if (users == 0) result = map();
    if (result == SUCCESS) users++;
    return leave(result);
}

API nvmlInit(void) { return nvmlInitWithFlags(0); }
API nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API nvmlShutdown(void) {
    enter();
    if (users == 0) return leave(UNINITIALIZED);
    if (--users == 0) {
        munmap((void *)ledger, LEDGER_SIZE);
        close(file);
    }
    return leave(SUCCESS);
}

static const char *const ERRORS[] = {
    "Success",
    "Uninitialized",
    "Invalid Argument",
    "Not Supported",
    "Insufficient Permissions",
    "Already Initialized",
    "Not Found",
    "Insufficient Size",
    "Insufficient External Power",
    "Driver Not Loaded",
    "Timeout",
    "Interrupt Request Issue",
    "NVML Shared Library Not Found",
    "Function Not Found",
    "Corrupted infoROM",
    "GPU is lost",
    "GPU requires reset",
    "The operating system has blocked the request.",
    "RM has detected an NVML/RM version mismatch.",
    "GPU in use",
    "Insufficient Memory",
    "No data",
    "The requested vgpu operation is not available on target device, becasue ECC is enabled.",
    "Insufficient Resources",
    "Frequency not supported",
    "Argument version mismatch",
};

__attribute__((visibility("default"))) const char *nvmlErrorString(int result) {
    return result >= 0 && result < (int)LEN(ERRORS) ? ERRORS[result] : "Unknown Error";
}

API nvmlSystemGetDriverVersion(char *version, unsigned length) {
    NEED_INIT;
    return copy(version, length, header()->driver);
}

API nvmlSystemGetNVMLVersion(char *version, unsigned length) {
    char text[64];
    NEED_INIT;
    snprintf(text, sizeof text, "%ld.%.40s", decimal(header()->cuda), header()->driver);
    return copy(version, length, text);
}

API nvmlSystemGetCudaDriverVersion(int *version) {
    NEED_INIT;
    if (version == NULL) return INVALID_ARGUMENT;
    const char *dot = strchr(header()->cuda, '.');
    *version = (int)(decimal(header()->cuda) * 1000 + (dot == NULL ? 0 : decimal(dot + 1) * 10));
    return SUCCESS;
}

API nvmlSystemGetCudaDriverVersion_v2(int *version) {
    return nvmlSystemGetCudaDriverVersion(version);
}

API nvmlSystemGetProcessName(unsigned pid, char *name, unsigned length) {
    NEED_INIT;
    for (unsigned i = 0; i < highest(); i++)
        for (unsigned of = 0; of < header()->count; of++)
            if (row(i)->pid == pid && uses(i, of)) return copy(name, length, row(i)->name);
    return NOT_FOUND;
}

API nvmlUnitGetCount(unsigned *count) {
    NEED_INIT;
    *count = 0;
    return SUCCESS;
}

/* -- which GPUs there are --------------------------------------------------------------------- */
API nvmlDeviceGetCount(unsigned *count) {
    NEED_INIT;
    if (count == NULL) return INVALID_ARGUMENT;
    *count = header()->count;
    return SUCCESS;
}

API nvmlDeviceGetCount_v2(unsigned *count) { return nvmlDeviceGetCount(count); }

API nvmlDeviceGetHandleByIndex(unsigned index, device_t *device) {
    NEED_INIT;
    if (index >= header()->count || device == NULL) return INVALID_ARGUMENT;
    *device = &devices[index];
    return SUCCESS;
}

API nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device) {
    return nvmlDeviceGetHandleByIndex(index, device);
}

API nvmlDeviceGetHandleByUUID(const char *uuid, device_t *device) {
    NEED_INIT;
    if (uuid == NULL || device == NULL) return INVALID_ARGUMENT;
    for (unsigned i = 0; i < header()->count; i++)
        if (!strcmp(gpu(&devices[i])->uuid, uuid)) return nvmlDeviceGetHandleByIndex(i, device);
    return NOT_FOUND;
}

API nvmlDeviceGetHandleBySerial(const char *serial, device_t *device) {
    (void)serial, (void)device;
    NEED_INIT;
    return NOT_FOUND; /* none has a serial number */
}

static unsigned hex(const char **text) {
    unsigned value = 0;
    for (;; (*text)++) {
        char letter = **text;
        unsigned digit = letter >= '0' && letter <= '9'   ? (unsigned)(letter - '0')
                         : letter >= 'a' && letter <= 'f' ? (unsigned)(letter - 'a' + 10)
                         : letter >= 'A' && letter <= 'F' ? (unsigned)(letter - 'A' + 10)
                                                          : 16;
        if (digit == 16) return value;
        value = value * 16 + digit;
    }
}

/* Domain, bus and device of "[domain:]bus:device[.function]". */
static void parse_bus(const char *text, unsigned parts[3]) {
    unsigned found[3] = {0}, count = 0;
    for (;;) {
        found[count++] = hex(&text);
        if (*text != ':' || count == 3) break;
        text++;
    }
    unsigned missing = 3 - count;
    for (unsigned i = 0; i < 3; i++) parts[i] = i < missing ? 0 : found[i - missing];
}

API nvmlDeviceGetHandleByPciBusId(const char *bus_id, device_t *device) {
    unsigned wanted[3], own[3];
    NEED_INIT;
    if (bus_id == NULL || device == NULL) return INVALID_ARGUMENT;
    parse_bus(bus_id, wanted);
    for (unsigned i = 0; i < header()->count; i++) {
        parse_bus(gpu(&devices[i])->bus_id, own);
        if (!memcmp(own, wanted, sizeof own)) return nvmlDeviceGetHandleByIndex(i, device);
    }
    return NOT_FOUND;
}

API nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, device_t *device) {
    return nvmlDeviceGetHandleByPciBusId(bus_id, device);
}

API nvmlDeviceGetIndex(device_t device, unsigned *index) {
    NEED(device, index);
    *index = device->number;
    return SUCCESS;
}

API nvmlDeviceGetMinorNumber(device_t device, unsigned *minor) {
    return nvmlDeviceGetIndex(device, minor);
}

API nvmlDeviceGetBoardId(device_t device, unsigned *board) {
    return nvmlDeviceGetIndex(device, board);
}

API nvmlDeviceGetName(device_t device, char *name, unsigned length) {
    NEED(device, name);
    return copy(name, length, gpu(device)->name);
}

API nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length) {
    NEED(device, uuid);
    return copy(uuid, length, gpu(device)->uuid);
}

API nvmlDeviceGetBrand(device_t device, unsigned *brand) {
    NEED(device, brand);
    *brand = strncmp(gpu(device)->name, "Tesla", 5) ? 14 /* NVIDIA */ : 2 /* Tesla */;
    return SUCCESS;
}

struct pci {
    char legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

/* What is common to all versions of the structure; the bus id in its short form. */
static void fill_pci(device_t device, struct pci *pci) {
    unsigned parts[3];
    parse_bus(gpu(device)->bus_id, parts);
    pci->domain = parts[0];
    pci->bus = parts[1];
    pci->device = parts[2];
    pci->device_id = pci->subsystem_id = 0;
    snprintf(pci->legacy, sizeof pci->legacy, "%04X:%02X:%02X.0", parts[0] & 0xffff,
             parts[1] & 0xff, parts[2] & 0xff);
}

API nvmlDeviceGetPciInfo_v3(device_t device, struct pci *pci) {
    NEED(device, pci);
    fill_pci(device, pci);
    return copy(pci->bus_id, sizeof pci->bus_id, gpu(device)->bus_id);
}

/* Older versions end before the long bus id. */
API nvmlDeviceGetPciInfo(device_t device, void *pci) {
    struct pci whole;
    NEED(device, pci);
    fill_pci(device, &whole);
    memcpy(pci, &whole, 16 + 4 * sizeof(unsigned));
    return SUCCESS;
}

API nvmlDeviceGetPciInfo_v2(device_t device, void *pci) {
    struct pci whole;
    NEED(device, pci);
    fill_pci(device, &whole);
    memcpy(pci, &whole, 16 + 5 * sizeof(unsigned));
    return SUCCESS;
}

/* -- what they are ---------------------------------------------------------------------------- */
API nvmlDeviceGetCudaComputeCapability(device_t device, int *major, int *minor) {
    NEED(device, major);
    *major = gpu(device)->major;
    *minor = gpu(device)->minor;
    return SUCCESS;
}

API nvmlDeviceGetArchitecture(device_t device, unsigned *architecture) {
    NEED(device, architecture);
    unsigned major = gpu(device)->major, minor = gpu(device)->minor;
    /* Kepler, Maxwell, Pascal: 2, 3, 4; Volta, Turing, Ampere, Ada, Hopper: 5 to 9 */
    *architecture = major <= 3   ? 2
                    : major <= 6 ? major - 2
                    : major == 7 ? (minor < 5 ? 5 : 6)
                    : major == 8 ? (minor == 9 ? 8 : 7)
                                 : 9;
    return SUCCESS;
}

API nvmlDeviceGetNumGpuCores(device_t device, unsigned *cores) {
    NEED(device, cores);
    unsigned major = gpu(device)->major, minor = gpu(device)->minor;
    unsigned each = major <= 3                                        ? 192
                    : major == 7 || (major <= 8 && major >= 6 && !minor) ? 64
                                                                      : 128;
    *cores = gpu(device)->sms * each;
    return SUCCESS;
}

static int limit(device_t device, unsigned *milliwatts) {
    NEED(device, milliwatts);
    *milliwatts = gpu(device)->power_w * 1000;
    return *milliwatts ? SUCCESS : NOT_SUPPORTED;
}

API nvmlDeviceGetPowerManagementLimit(device_t d, unsigned *mw) { return limit(d, mw); }
API nvmlDeviceGetPowerManagementDefaultLimit(device_t d, unsigned *mw) { return limit(d, mw); }
API nvmlDeviceGetEnforcedPowerLimit(device_t d, unsigned *mw) { return limit(d, mw); }

/* -- how much of them is used ----------------------------------------------------------------- */
struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

API nvmlDeviceGetMemoryInfo(device_t device, struct memory *memory) {
    NEED(device, memory);
    memory->total = gpu(device)->memory;
    memory->used = used(device);
    memory->free = memory->total > memory->used ? memory->total - memory->used : 0;
    return SUCCESS;
}

API nvmlDeviceGetMemoryInfo_v2(device_t device, struct memory_v2 *memory) {
    struct memory all;
    NEED(device, memory);
    if (memory->version != (sizeof *memory | 2u << 24)) return VERSION_MISMATCH;
    nvmlDeviceGetMemoryInfo(device, &all);
    memory->total = all.total;
    memory->used = all.used;
    memory->free = all.free;
    memory->reserved = 0;
    return SUCCESS;
}

struct process_v1 {
    unsigned pid;
    unsigned long long memory;
};

struct process {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};

/* The processes on a GPU; `process` of `size` bytes each begins as version 1. */
static int processes(device_t device, unsigned *count, void *infos, size_t size) {
    unsigned room, found = 0;
    NEED(device, count);
    room = infos == NULL ? 0 : *count;
    for (unsigned i = 0; i < highest(); i++) {
        if (!uses(i, device->number)) continue;
        if (found < room) {
            struct process one = {.gpu_instance = ~0u, .compute_instance = ~0u};
            one.pid = (unsigned)row(i)->pid;
            one.memory = (unsigned long long)taken(i, device->number);
            memcpy((char *)infos + found * size, &one, size);
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

API nvmlDeviceGetComputeRunningProcesses(device_t d, unsigned *count, void *infos) {
    return processes(d, count, infos, sizeof(struct process_v1));
}

API nvmlDeviceGetComputeRunningProcesses_v2(device_t d, unsigned *count, void *infos) {
    return processes(d, count, infos, sizeof(struct process));
}

API nvmlDeviceGetComputeRunningProcesses_v3(device_t d, unsigned *count, void *infos) {
    return processes(d, count, infos, sizeof(struct process));
}

/* None draws, and none is a client of the Multi-Process Service. */
static int nobody(device_t device, unsigned *count) {
    NEED(device, count);
    *count = 0;
    return SUCCESS;
}

#define NOBODY(name) \
    API name(device_t device, unsigned *count, void *infos) { \
        (void)infos;                                          \
        return nobody(device, count);                         \
    }
NOBODY(nvmlDeviceGetGraphicsRunningProcesses)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v2)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v3)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v2)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v3)

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Seconds that a process has been on a CPU; -1: it is not there, or not to be seen. */
static double cpu_s(long long pid) {
    char path[40], text[1024], *at;
    unsigned long ticks = 0;
    snprintf(path, sizeof path, "/proc/%lld/stat", pid);
    int stat = open(path, O_RDONLY | O_CLOEXEC);
    if (stat < 0) return -1;
    ssize_t size = read(stat, text, sizeof text - 1);
    close(stat);
    text[size > 0 ? size : 0] = 0;
    if ((at = strrchr(text, ')')) == NULL) return -1;
    for (int field = 2; *at && field < 15; at++) {
        if (*at != ' ') continue;
        if (++field >= 14) ticks += (unsigned long)decimal(at + 1); /* utime, stime */
    }
    return (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

/* Per cent that the processes of each GPU were on a CPU, -1 where that cannot be known. */
static int busy[MAX_GPUS];
static double busy_at = -1;

static void measure(void) {
    static double before[MAX_ROWS];
    static unsigned using[MAX_ROWS];
    struct timespec period = {0, 200000000};
    double began = now(), share[MAX_GPUS] = {0};
    unsigned rows = highest(), unseen = 0, any = 0;
    for (unsigned i = 0; i < rows; i++) {
        using[i] = 0;
        for (unsigned of = 0; of < header()->count; of++)
            if (uses(i, of)) using[i] |= 1u << of;
        if (using[i]) before[i] = cpu_s(row(i)->pid);
        any |= using[i];
    }
    if (any) nanosleep(&period, NULL);
    busy_at = now();
    for (unsigned i = 0; i < rows; i++) {
        double after = using[i] ? cpu_s(row(i)->pid) : 0;
        for (unsigned of = 0; of < MAX_GPUS; of++) {
            if (!(using[i] & 1u << of)) continue;
            if (before[i] < 0 || after < 0) unseen |= 1u << of;
            share[of] += (after - before[i]) / (busy_at - began);
        }
    }
    for (unsigned of = 0; of < MAX_GPUS; of++) {
        int percent = (int)(share[of] * 100 + 0.5);
        busy[of] = unseen & 1u << of ? -1 : percent > 100 ? 100 : percent;
    }
}

struct utilization {
    unsigned gpu, memory;
};

/* Of the memory's bandwidth nothing is known; the structure has no way to say so. */
API nvmlDeviceGetUtilizationRates(device_t device, struct utilization *rates) {
    NEED(device, rates);
    enter();
    if (busy_at < 0 || now() - busy_at > 0.5) measure();
    int percent = busy[device->number];
    rates->gpu = percent < 0 ? 0 : (unsigned)percent;
    rates->memory = 0;
    return leave(percent < 0 ? NOT_SUPPORTED : SUCCESS);
}

/* -- how they are set ------------------------------------------------------------------------- */
#define ALWAYS(name, value)                       \
    API name(device_t device, unsigned *answer) { \
        NEED(device, answer);                     \
        *answer = (value);                        \
        return SUCCESS;                           \
    }
ALWAYS(nvmlDeviceGetComputeMode, 0)       /* default */
ALWAYS(nvmlDeviceGetPersistenceMode, 0)   /* disabled */
ALWAYS(nvmlDeviceGetDisplayMode, 0)       /* disabled */
ALWAYS(nvmlDeviceGetDisplayActive, 0)     /* disabled */
ALWAYS(nvmlDeviceGetAccountingMode, 0)    /* disabled */
ALWAYS(nvmlDeviceGetPerformanceState, 0)  /* P0 */
ALWAYS(nvmlDeviceGetPowerState, 0)        /* P0 */
ALWAYS(nvmlDeviceGetVirtualizationMode, 2) /* a virtual GPU */
ALWAYS(nvmlDeviceGetMultiGpuBoard, 0)
ALWAYS(nvmlDeviceGetMaxMigDeviceCount, 0)
ALWAYS(nvmlDeviceIsMigDeviceHandle, 0)
ALWAYS(nvmlDeviceGetNumFans, 0)

API nvmlDeviceGetMigMode(device_t device, unsigned *current, unsigned *pending) {
    NEED(device, current);
    const struct gpu *own = gpu(device);
    if (own->minor != 0 || own->major < 8) return NOT_SUPPORTED;
    *current = 0;
    if (pending != NULL) *pending = 0;
    return SUCCESS;
}

API nvmlDeviceOnSameBoard(device_t one, device_t other, int *answer) {
    NEED(one, answer);
    *answer = one == other;
    return known(other);
}

API nvmlDeviceGetTopologyCommonAncestor(device_t one, device_t other, unsigned *level) {
    NEED(one, level);
    *level = one == other ? 0 : 50; /* only the host's memory connects them */
    return known(other);
}

API nvmlDeviceGetTopologyNearestGpus(device_t device, unsigned level, unsigned *count,
                                     device_t *nearest) {
    NEED(device, count);
    unsigned room = nearest == NULL ? 0 : *count, found = 0;
    for (unsigned i = 0; level >= 50 && i < header()->count; i++) {
        if (i == device->number) continue;
        if (found < room) nearest[found] = &devices[i];
        found++;
    }
    *count = found;
    return SUCCESS;
}

API nvmlDeviceGetP2PStatus(device_t one, device_t other, unsigned index, unsigned *status) {
    (void)index;
    NEED(one, status);
    *status = 5; /* not supported */
    return known(other);
}

/* -- what a virtual GPU has not --------------------------------------------------------------- */
#define NOT_HERE(name) \
    API name(device_t device) { return known(device) == SUCCESS ? NOT_SUPPORTED : known(device); }
NOT_HERE(nvmlDeviceGetSerial)
NOT_HERE(nvmlDeviceGetBoardPartNumber)
NOT_HERE(nvmlDeviceGetVbiosVersion)
NOT_HERE(nvmlDeviceGetInforomVersion)
NOT_HERE(nvmlDeviceGetInforomImageVersion)
NOT_HERE(nvmlDeviceGetBridgeChipInfo)
NOT_HERE(nvmlDeviceGetTemperature)
NOT_HERE(nvmlDeviceGetTemperatureV)
NOT_HERE(nvmlDeviceGetTemperatureThreshold)
NOT_HERE(nvmlDeviceGetThermalSettings)
NOT_HERE(nvmlDeviceGetPowerUsage)
NOT_HERE(nvmlDeviceGetPowerManagementMode)
NOT_HERE(nvmlDeviceGetPowerManagementLimitConstraints)
NOT_HERE(nvmlDeviceGetTotalEnergyConsumption)
NOT_HERE(nvmlDeviceGetFanSpeed)
NOT_HERE(nvmlDeviceGetFanSpeed_v2)
NOT_HERE(nvmlDeviceGetClock)
NOT_HERE(nvmlDeviceGetClockInfo)
NOT_HERE(nvmlDeviceGetMaxClockInfo)
NOT_HERE(nvmlDeviceGetApplicationsClock)
NOT_HERE(nvmlDeviceGetDefaultApplicationsClock)
NOT_HERE(nvmlDeviceGetMaxCustomerBoostClock)
NOT_HERE(nvmlDeviceGetSupportedMemoryClocks)
NOT_HERE(nvmlDeviceGetSupportedGraphicsClocks)
NOT_HERE(nvmlDeviceGetAutoBoostedClocksEnabled)
NOT_HERE(nvmlDeviceGetCurrentClocksThrottleReasons)
NOT_HERE(nvmlDeviceGetSupportedClocksThrottleReasons)
NOT_HERE(nvmlDeviceGetCurrentClocksEventReasons)
NOT_HERE(nvmlDeviceGetSupportedClocksEventReasons)
NOT_HERE(nvmlDeviceGetViolationStatus)
NOT_HERE(nvmlDeviceGetBAR1MemoryInfo)
NOT_HERE(nvmlDeviceGetMemoryBusWidth)
NOT_HERE(nvmlDeviceGetEccMode)
NOT_HERE(nvmlDeviceGetDefaultEccMode)
NOT_HERE(nvmlDeviceGetTotalEccErrors)
NOT_HERE(nvmlDeviceGetDetailedEccErrors)
NOT_HERE(nvmlDeviceGetMemoryErrorCounter)
NOT_HERE(nvmlDeviceGetRetiredPages)
NOT_HERE(nvmlDeviceGetRetiredPages_v2)
NOT_HERE(nvmlDeviceGetRetiredPagesPendingStatus)
NOT_HERE(nvmlDeviceGetRemappedRows)
NOT_HERE(nvmlDeviceGetEncoderUtilization)
NOT_HERE(nvmlDeviceGetDecoderUtilization)
NOT_HERE(nvmlDeviceGetEncoderStats)
NOT_HERE(nvmlDeviceGetEncoderSessions)
NOT_HERE(nvmlDeviceGetProcessUtilization)
NOT_HERE(nvmlDeviceGetSamples)
NOT_HERE(nvmlDeviceGetFieldValues)
NOT_HERE(nvmlDeviceGetCurrPcieLinkGeneration)
NOT_HERE(nvmlDeviceGetCurrPcieLinkWidth)
NOT_HERE(nvmlDeviceGetMaxPcieLinkGeneration)
NOT_HERE(nvmlDeviceGetMaxPcieLinkWidth)
NOT_HERE(nvmlDeviceGetPcieThroughput)
NOT_HERE(nvmlDeviceGetPcieReplayCounter)
NOT_HERE(nvmlDeviceGetNvLinkState)
NOT_HERE(nvmlDeviceGetNvLinkVersion)
NOT_HERE(nvmlDeviceGetNvLinkRemotePciInfo_v2)
NOT_HERE(nvmlDeviceGetNvLinkCapability)
NOT_HERE(nvmlDeviceGetCpuAffinity)
NOT_HERE(nvmlDeviceGetDriverModel)
NOT_HERE(nvmlDeviceGetGpuOperationMode)
NOT_HERE(nvmlDeviceGetAttributes_v2)
NOT_HERE(nvmlDeviceGetMigDeviceHandleByIndex)
NOT_HERE(nvmlDeviceGetGpuInstanceId)
NOT_HERE(nvmlDeviceGetComputeInstanceId)
NOT_HERE(nvmlDeviceGetAccountingStats)
NOT_HERE(nvmlDeviceGetAccountingPids)
NOT_HERE(nvmlDeviceGetGspFirmwareVersion)

#define FORBIDDEN(name) \
    API name(device_t device) { return known(device) == SUCCESS ? NO_PERMISSION : known(device); }
FORBIDDEN(nvmlDeviceSetComputeMode)
FORBIDDEN(nvmlDeviceSetPersistenceMode)
FORBIDDEN(nvmlDeviceSetPowerManagementLimit)
FORBIDDEN(nvmlDeviceSetApplicationsClocks)
FORBIDDEN(nvmlDeviceResetApplicationsClocks)
FORBIDDEN(nvmlDeviceSetGpuLockedClocks)
FORBIDDEN(nvmlDeviceResetGpuLockedClocks)
FORBIDDEN(nvmlDeviceSetMigMode)
FORBIDDEN(nvmlDeviceSetEccMode)
FORBIDDEN(nvmlDeviceSetAccountingMode)
FORBIDDEN(nvmlDeviceSetCpuAffinity)
FORBIDDEN(nvmlDeviceClearCpuAffinity)

/* The part of the CUDA driver that gpu_check.py asks, for hosts without one.

   FAKE_CUDA says what the machine has, a line per GPU: UUID (32 hex digits), bytes, SMs.
   CUDA_VISIBLE_DEVICES chooses among them by UUID as CUDA does. Limits of the Multi-Process Service
   hold only if the directory of its daemon is FAKE_MPS, and are silently none otherwise. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8, SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, NO_DEVICE = 100 };

static struct gpu {
    unsigned char uuid[16];
    size_t bytes;
    int sms;
} gpus[MOST];
static int count = -1, current = -1;

static int hex(const char *text, unsigned char *bytes) {
    int digits = 0;
    for (; *text && digits < 32; text++) {
        unsigned value;
        if (*text == '-') continue;
        if (sscanf(text, "%1x", &value) != 1) return -1;
        bytes[digits / 2] = digits % 2 ? bytes[digits / 2] | value : value << 4;
        digits++;
    }
    return digits;
}

static int limited(void) {
    const char *asked = getenv("CUDA_MPS_PIPE_DIRECTORY"), *daemon = getenv("FAKE_MPS");
    return asked && daemon && strcmp(asked, daemon) == 0;
}

int cuInit(unsigned flags) {
    const char *machine = getenv("FAKE_CUDA"), *visible = getenv("CUDA_VISIBLE_DEVICES");
    struct gpu all[MOST];
    int total = 0, used = 0;
    char uuid[64];
    if (flags || !machine) return NO_DEVICE;
    for (const char *line = machine; line && *line && total < MOST; total++) {
        memset(&all[total], 0, sizeof all[total]);
        if (sscanf(line, "%63s %zu %d", uuid, &all[total].bytes, &all[total].sms) != 3) break;
        hex(uuid, all[total].uuid);
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    if (!visible) {
        memcpy(gpus, all, sizeof all);
        count = total;
        return count ? SUCCESS : NO_DEVICE;
    }
    for (const char *word = visible; word && *word; word = strchr(word, ',') ? strchr(word, ',') + 1 : NULL) {
        unsigned char wanted[16];
        int found = -1;
        if (strncmp(word, "GPU-", 4) && strncmp(word, "MIG-", 4)) break;
        if (hex(word + 4, wanted) != 32) break;
        for (int i = 0; i < total; i++)
            if (!memcmp(all[i].uuid, wanted, 16)) found = i;
        if (found < 0) break;
        gpus[used++] = all[found];
    }
    count = used;
    return count ? SUCCESS : NO_DEVICE;
}

int cuDriverGetVersion(int *version) { *version = 12040; return SUCCESS; }

int cuGetErrorName(int code, const char **text) {
    *text = code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : NULL;
    return code == NO_DEVICE ? SUCCESS : INVALID_VALUE;
}

int cuDeviceGetCount(int *number) { *number = count; return count < 0 ? NOT_INITIALIZED : SUCCESS; }

int cuDeviceGet(int *device, int ordinal) {
    if (ordinal < 0 || ordinal >= count) return INVALID_VALUE;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetUuid_v2(char *bytes, int device) {
    memcpy(bytes, gpus[device].uuid, 16);
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = gpus[device].bytes; return SUCCESS; }

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *share = getenv("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE");
    if (attribute != 16) return INVALID_VALUE;
    *value = gpus[device].sms;
    if (share && limited()) *value = (int)(gpus[device].sms * atof(share) / 100);
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = &gpus[device];
    return SUCCESS;
}

int cuCtxSetCurrent(void *context) {
    current = (int)((struct gpu *)context - gpus);
    return SUCCESS;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
    const char *limit = getenv("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT");
    if (current < 0) return NOT_INITIALIZED;
    *free = *total = gpus[current].bytes;
    if (limit && limited() && !strchr(limit, ',')) *free = (size_t)atof(strchr(limit, '=') + 1) << 30;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) { (void)device; current = -1; return SUCCESS; }

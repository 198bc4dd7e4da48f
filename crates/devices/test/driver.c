/* A libcuda.so.1 for tests of what drivers do wrong: it answers as it is told by macros at compile time.
   CARDS, VERSION, INIT (what cuInit returns), MAJOR and MINOR of the compute capability, FREE and TOTAL bytes, NAME. */
#include <stddef.h>
#include <string.h>

#ifndef CARDS
#define CARDS 1
#endif
#ifndef VERSION
#define VERSION 13000
#endif
#ifndef INIT
#define INIT 0
#endif
#ifndef MAJOR
#define MAJOR 9
#endif
#ifndef MINOR
#define MINOR 0
#endif
#ifndef TOTAL
#define TOTAL 150754820096ull
#endif
#ifndef FREE
#define FREE 149000000000ull
#endif
#ifndef NAME
#define NAME "NVIDIA H200"
#endif

static int contexts;

int cuInit(unsigned flags) { return flags == 0 ? INIT : 1; }

int cuDriverGetVersion(int *version) {
#ifdef STUB
  return 34;
#endif
  *version = VERSION;
  return 0;
}

int cuGetErrorName(int code, const char **name) {
  if (code != INIT || code == 0) return 1;
  *name = "CUDA_ERROR_AS_TOLD";
  return 0;
}

int cuDeviceGetCount(int *count) {
  *count = CARDS;
  return 0;
}

int cuDeviceGet(int *device, int ordinal) {
  if (ordinal < 0 || ordinal >= CARDS) return 101;
  *device = 40 + ordinal; /* a handle is not the index */
  return 0;
}

#ifndef WITHOUT_NAME
int cuDeviceGetName(char *name, int room, int device) {
  if (device < 40) return 101;
  strncpy(name, NAME, room);
  return 0;
}
#endif

int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = (unsigned char)(16 * (device - 40) + i);
  return 0;
}

int cuDeviceGetPCIBusId(char *bus, int room, int device) {
  strncpy(bus, device == 40 ? "0000:01:00.0" : "0000:02:00.0", room);
  return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  *bytes = device >= 40 ? TOTAL : 0;
  return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
  if (device < 40) return 101;
  if (attribute == 75) *value = MAJOR;
  else if (attribute == 76) *value = MINOR;
  else if (attribute == 16) *value = 132;
  else return 1;
  return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (device < 40) return 101;
#ifdef BUSY
  return 46;
#endif
  *context = &contexts;
  contexts++;
  return 0;
}

int cuDevicePrimaryCtxRelease_v2(int device) { return device >= 40 && contexts-- > 0 ? 0 : 201; }
int cuCtxPushCurrent_v2(void *context) { return context == &contexts ? 0 : 201; }

int cuCtxPopCurrent_v2(void **context) {
  *context = &contexts;
  return 0;
}

int cuMemGetInfo_v2(size_t *available, size_t *total) {
  if (contexts != 1) return 201;
  *available = FREE;
  *total = TOTAL;
  return 0;
}

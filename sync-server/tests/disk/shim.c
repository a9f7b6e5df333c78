/* Stands between a process and the files of one directory: writes down what it does to them, and makes one kind of call fail.
 *
 * Built and preloaded by disk/mod.rs, which reads the record. Linux only.
 *
 *   DISK_ROOT    the directory; what is elsewhere passes through untouched, and only below its "data" anything fails
 *   DISK_RECORD  file that the record is appended to
 *   DISK_FAIL    "KIND FIRST COUNT ERRNO": the calls of that kind numbered FIRST and on fail, COUNT of them.
 *                KIND is sync, sync-directory, write, read or truncate; they are counted from 1. ERRNO 0 kills the process instead.
 *
 * A record is struct record, then the path, then the bytes written. What changes a file is recorded before it is done, so
 * that nobody can have seen what is not recorded; a sync is recorded before and after.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct record {
    uint64_t kind; /* one letter, below */
    uint64_t file; /* the inode */
    uint64_t offset;
    uint64_t length;
    uint64_t path_length;
};

enum {
    CREATED = 'C',
    WRITTEN = 'W',
    TRUNCATED = 'T',
    UNLINKED = 'U',
    SYNC_BEGAN = 'B', /* offset: number of this sync */
    SYNCED = 'S',     /* offset: number of this sync */
    SYNC_FAILED = 'F'
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[512];
static size_t root_length;
static int record_fd = -1;
static char fail_kind[16];
static long fail_first, fail_count, fail_errno, counted;
static uint64_t syncs;

__attribute__((constructor)) static void begin(void) {
    const char *record = getenv("DISK_RECORD"), *directory = getenv("DISK_ROOT"), *fail = getenv("DISK_FAIL");
    if (!record || !directory) return;
    record_fd = syscall(SYS_openat, AT_FDCWD, record, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    snprintf(root, sizeof root, "%s", directory);
    root_length = strlen(root);
    if (fail) sscanf(fail, "%15s %ld %ld %ld", fail_kind, &fail_first, &fail_count, &fail_errno);
}

static int is_ours(const char *path) {
    return record_fd >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* Whether this is one of the directory's files, or the directory; fills in its path and inode. */
static int find(int fd, char *path, size_t size, uint64_t *file) {
    char link[64];
    struct stat stat;
    if (record_fd < 0 || fd == record_fd) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    if (!is_ours(path) || fstat(fd, &stat)) return 0;
    if (!S_ISREG(stat.st_mode) && !S_ISDIR(stat.st_mode)) return 0;
    *file = stat.st_ino;
    return 1;
}

static void put(uint64_t kind, uint64_t file, const char *path, uint64_t offset, const void *bytes, uint64_t length) {
    struct record record = {kind, file, offset, length, strlen(path)};
    struct iovec parts[3] = {{&record, sizeof record}, {(void *)path, record.path_length}, {(void *)bytes, length}};
    syscall(SYS_writev, record_fd, parts, bytes ? 3 : 2);
}

/* Whether this call is one that fails. Under the lock. */
static int fails(const char *kind, const char *path) {
    if (!fail_count || strcmp(kind, fail_kind) || strncmp(path + root_length, "/data", 5)) return 0;
    counted++;
    if (counted < fail_first || counted - fail_first >= fail_count) return 0;
    if (!fail_errno) kill(getpid(), SIGKILL);
    errno = fail_errno;
    return 1;
}

/* ---- writing */

static ssize_t put_bytes(int fd, const void *bytes, size_t length, off64_t offset, int is_at) {
    char path[600];
    uint64_t file;
    int is_found = find(fd, path, sizeof path, &file);
    if (is_found) {
        pthread_mutex_lock(&lock);
        if (fails("write", path)) {
            pthread_mutex_unlock(&lock);
            return -1;
        }
        int flags = fcntl(fd, F_GETFL);
        struct stat stat;
        if (!is_at) offset = (flags & O_APPEND) && !fstat(fd, &stat) ? stat.st_size : lseek64(fd, 0, SEEK_CUR);
        put(WRITTEN, file, path, offset, bytes, length);
    }
    ssize_t written = is_at ? syscall(SYS_pwrite64, fd, bytes, length, offset) : syscall(SYS_write, fd, bytes, length);
    if (is_found) pthread_mutex_unlock(&lock);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) { return put_bytes(fd, bytes, length, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return put_bytes(fd, bytes, length, offset, 1);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return put_bytes(fd, bytes, length, offset, 1);
}

static int cut(int fd, off64_t length) {
    char path[600];
    uint64_t file;
    int is_found = find(fd, path, sizeof path, &file), result = -1;
    if (is_found) pthread_mutex_lock(&lock);
    if (!is_found || !fails("truncate", path)) {
        if (is_found) put(TRUNCATED, file, path, length, NULL, 0);
        result = syscall(SYS_ftruncate, fd, length);
    }
    if (is_found) pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off64_t length) { return cut(fd, length); }

/* ---- syncing */

/* What a sync could not write is told once to everybody who had the file open: Linux does so, and a sync of somebody else
 * that is under way must not pass for one that wrote it. */
enum { FAILURES = 64, DESCRIPTORS = 1024 };
static struct {
    uint64_t file;
    char told[DESCRIPTORS];
} failures[FAILURES];
static int n_failures;

/* Under the lock. */
static void note_failure(uint64_t file) {
    if (n_failures < FAILURES) failures[n_failures++].file = file;
}

/* Whether this descriptor has yet to be told of a failure. Under the lock. */
static int has_news(uint64_t file, int fd) {
    int found = 0;
    for (int i = 0; i < n_failures && fd < DESCRIPTORS; i++) {
        if (failures[i].file != file || failures[i].told[fd]) continue;
        failures[i].told[fd] = found = 1;
    }
    return found;
}

/* Whoever opens a file later is not told. Under the lock. */
static void knows_all(int fd) {
    for (int i = 0; i < n_failures && fd >= 0 && fd < DESCRIPTORS; i++) failures[i].told[fd] = 1;
}

static int sync_file(int fd) {
    char path[600];
    uint64_t file;
    /* Not done in truth: what a cut of power leaves is made from the record. */
    if (!find(fd, path, sizeof path, &file)) return syscall(SYS_fsync, fd);
    pthread_mutex_lock(&lock);
    uint64_t number = ++syncs + ((uint64_t)getpid() << 32);
    struct stat stat;
    int failed = fails(!fstat(fd, &stat) && S_ISDIR(stat.st_mode) ? "sync-directory" : "sync", path);
    put(SYNC_BEGAN, file, path, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    usleep(200);
    pthread_mutex_lock(&lock);
    if (failed) note_failure(file);
    failed |= has_news(file, fd);
    put(failed ? SYNC_FAILED : SYNCED, file, path, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (failed) errno = fail_errno;
    return failed ? -1 : 0;
}

int fsync(int fd) { return sync_file(fd); }
int fdatasync(int fd) { return sync_file(fd); }

/* ---- names */

static int open_file(const char *path, int flags, mode_t mode) {
    struct stat before;
    if (!is_ours(path)) return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = !stat(path, &before);
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    knows_all(fd);
    if ((flags & O_CREAT) && fd >= 0 && !fstat(fd, &before)) {
        if (!existed) put(CREATED, before.st_ino, path, 0, NULL, 0);
        else if (flags & O_TRUNC) put(TRUNCATED, before.st_ino, path, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(name)                                                                                                    \
    int name(const char *path, int flags, ...) {                                                                      \
        va_list rest;                                                                                                 \
        va_start(rest, flags);                                                                                        \
        mode_t mode = va_arg(rest, mode_t);                                                                           \
        va_end(rest);                                                                                                 \
        return open_file(path, flags, mode);                                                                          \
    }
OPEN(open)
OPEN(open64)

int unlink(const char *path) {
    struct stat stat_of;
    int is_found = is_ours(path) && !stat(path, &stat_of);
    if (is_found) {
        pthread_mutex_lock(&lock);
        put(UNLINKED, stat_of.st_ino, path, 0, NULL, 0);
    }
    int result = syscall(SYS_unlink, path);
    if (is_found) pthread_mutex_unlock(&lock);
    return result;
}

/* ---- reading */

static ssize_t get_bytes(int fd, void *bytes, size_t length, off64_t offset, int is_at) {
    char path[600];
    uint64_t file;
    if (!strcmp(fail_kind, "read") && find(fd, path, sizeof path, &file)) {
        pthread_mutex_lock(&lock);
        int failed = fails("read", path);
        pthread_mutex_unlock(&lock);
        if (failed) return -1;
    }
    return is_at ? syscall(SYS_pread64, fd, bytes, length, offset) : syscall(SYS_read, fd, bytes, length);
}

ssize_t read(int fd, void *bytes, size_t length) { return get_bytes(fd, bytes, length, 0, 0); }
ssize_t pread(int fd, void *bytes, size_t length, off_t offset) { return get_bytes(fd, bytes, length, offset, 1); }
ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) { return get_bytes(fd, bytes, length, offset, 1); }

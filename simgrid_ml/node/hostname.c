/* Loaded into every process of a node where the host allows no namespace for host names: the node's
 * name for Open MPI, Horovod and Python alike. With one name for all nodes, MPI's groups of ranks
 * that share memory disagree with the mapping, and collectives hang (seen with Open MPI 5.0.11). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

int uname(struct utsname *names) {
    int result = syscall(SYS_uname, names);
    const char *node = getenv("SIMGRID_ML_NODE");
    if (result == 0 && node != NULL) {
        strncpy(names->nodename, node, sizeof names->nodename - 1);
        names->nodename[sizeof names->nodename - 1] = 0;
    }
    return result;
}

int gethostname(char *name, size_t size) {
    struct utsname names;
    if (uname(&names) != 0) return -1;
    if (strlen(names.nodename) >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(name, names.nodename);
    return 0;
}

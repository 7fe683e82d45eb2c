/* rsh.py in C, for hosts with a compiler: what Open MPI runs instead of ssh, `rsh NODE COMMAND…`.
 *
 * mpirun starts one per remote node, all at a time: 63 of them cost 0.04 s instead of 0.7. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The text as the inside of a JSON string. */
static void escape(FILE *out, const char *text) {
    for (; *text; text++) {
        unsigned char letter = (unsigned char)*text;
        if (letter == '"' || letter == '\\')
            fprintf(out, "\\%c", letter);
        else if (letter < 0x20)
            fprintf(out, "\\u%04x", letter);
        else
            fputc(letter, out);
    }
}

/* A connection to the control socket; through its folder where the path is too long for one. */
static int dial(const char *run_dir) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int folder = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (sock < 0 || folder < 0) return -1;
    if (strlen(run_dir) + sizeof "/control.sock" <= sizeof name.sun_path)
        sprintf(name.sun_path, "%s/control.sock", run_dir);
    else
        sprintf(name.sun_path, "/proc/self/fd/%d/control.sock", folder);
    return connect(sock, (struct sockaddr *)&name, sizeof name) == 0 ? sock : -1;
}

static int is_flag(const char *word) {
    return !strcmp(word, "-x") || !strcmp(word, "-T") || !strcmp(word, "-n") || !strcmp(word, "-q");
}

int main(int argc, char **argv) {
    const char *run_dir = getenv("SIMGRID_ML_RUN_DIR");
    int sock = run_dir == NULL ? -1 : dial(run_dir);
    if (sock < 0) {
        const char *reason = run_dir == NULL ? "SIMGRID_ML_RUN_DIR is not set" : strerror(errno);
        fprintf(stderr, "cannot reach the supervisor of this run: %s\n", reason);
        return 255;
    }
    char *request = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&request, &size);
    const char *node = NULL, *space = "";
    for (int i = 1; i < argc; i++) {
        if (is_flag(argv[i])) continue;
        if (node == NULL) {
            node = argv[i];
            fputs("{\"op\":\"rsh\",\"node\":\"", out);
            escape(out, node);
            fputs("\",\"argv\":[\"/bin/sh\",\"-c\",\"", out);
        } else {
            fputs(space, out);
            escape(out, argv[i]);
            space = " ";
        }
    }
    fputs("\"]}\n", out);
    fclose(out);
    if (node == NULL) {
        fputs("usage: rsh NODE COMMAND...\n", stderr);
        return 255;
    }
    for (size_t sent = 0; sent < size;) {
        ssize_t now = send(sock, request + sent, size - sent, MSG_NOSIGNAL);
        if (now < 0) return 255;
        sent += (size_t)now;
    }
    char answer[4096];
    size_t length = 0;
    while (length < sizeof answer - 1) {
        ssize_t got = read(sock, answer + length, sizeof answer - 1 - length);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        length += (size_t)got;
        if (answer[length - 1] == '\n') break;
    }
    answer[length] = 0;
    const char *error = strstr(answer, "\"error\": \""), *code = strstr(answer, "\"code\": ");
    if (error != NULL) {
        error += strlen("\"error\": \"");
        fprintf(stderr, "%.*s\n", (int)strcspn(error, "\""), error);
    }
    return code == NULL ? 255 : atoi(code + strlen("\"code\": "));
}

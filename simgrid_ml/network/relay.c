/* The switch between shaped nodes, `relay LISTENING_SOCKET`; relay.py says what it does and why.
 *
 * Told and asked over stdin, one line each, answered by one line on stdout once it has started:
 *
 *   plan NODES CABLES SEED
 *   node NUMBER NAME ADDRESS
 *   cable NUMBER NS_PER_BYTE DELAY_NS JITTER_NS LOSS QUEUE_BYTES    at any time
 *   route FROM TO COUNT CABLE...
 *   long NODE 0|1         whether segments of a node may stay together; at any time
 *   start                 answered by `ready OFFSET_NS`
 *   counters              answered by the time, then a line for each cable
 *
 * Agents say `join NAME` over the socket, with the descriptor of a TUN device (IFF_VNET_HDR).
 * The end of stdin is the end of the relay. relay_program.py is the same in Python.
 *
 * A packet in flight is an event: at its time it enters its next cable, or its node. Events are
 * handled in the order of their own times, however late, so a late wake-up changes no rate. The
 * relay wakes for what has to be delivered; what happens between cables can wait until then. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HEADER 10                    /* of virtio, in front of each packet */
#define ETHERNET 14                  /* bytes that a frame has more than its packet */
#define LARGEST (HEADER + 65535)
#define SMALL 2048                   /* packets up to this size get small buffers */
#define HELD_MAX (64 * 1024 * 1024)  /* bytes in flight from one node before it has to wait */
#define BATCH 16                     /* packets read from one node before others have a turn */
#define JOINING 64                   /* agents that are about to join */
#define SAMPLES 15                   /* for the relay's own latency */
#define WAITS 24                     /* kinds of waiting, by powers of two microseconds */
#define LATEST 1e5                   /* ns; a later wake-up is a busy machine's, not a constant */
#define NOBODY 65534

struct packet {
    double first, last, wire; /* when its first and last bit leave a cable; bytes as frames */
    double alarm;             /* when the relay is to wake for it */
    struct packet *next;      /* in the list of free ones */
    int source, target, hop, segments, size, large, is_ack;
    unsigned char data[];
};

struct cable {
    double ns_per_byte, delay, jitter, loss, queue;
    double clear, latest, busy; /* when it can send again; when its last packet has arrived */
    uint64_t chance;
    unsigned long long bytes, packets, dropped, lost;
};

struct node {
    char name[256];
    uint32_t address;
    int tun, is_long;
    long held;
};

struct event {
    double time;
    uint64_t order;
    struct packet *packet; /* NULL: only a time to wake */
};

struct queue { /* a heap ordered by time, then by when events were added */
    struct event *events;
    size_t count, space;
    uint64_t order;
};

static struct node *nodes;
static struct cable *cables;
static int **routes; /* of each pair: count, cables; NULL: none */
static int node_count, cable_count, started, joining[JOINING], joining_count;
static struct queue due, alarms;
static struct packet *unused[2];
static double begun, offset, lateness[WAITS];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec - begun;
}

static void fail(const char *what) {
    fprintf(stderr, "relay: %s\n", what);
    exit(1);
}

static void *space(void *old, size_t size) {
    void *got = realloc(old, size);
    if (got == NULL) fail("there is no memory left");
    return got;
}

/* -- chance: splitmix64, one stream for each cable, so that others do not change it ----------- */
static double drawn(struct cable *cable) {
    uint64_t z = cable->chance += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* -- packets --------------------------------------------------------------------------------- */
static struct packet *take(int large) {
    struct packet *packet = unused[large];
    if (packet != NULL)
        unused[large] = packet->next;
    else
        packet = space(NULL, sizeof *packet + (large ? LARGEST : SMALL));
    packet->large = large;
    return packet;
}

static void give_back(struct packet *packet) {
    packet->next = unused[packet->large];
    unused[packet->large] = packet;
}

static void forget(struct packet *packet) {
    nodes[packet->source].held -= packet->size;
    give_back(packet);
}

/* -- events ---------------------------------------------------------------------------------- */
static int before(const struct event *a, const struct event *b) {
    return a->time < b->time || (a->time == b->time && a->order < b->order);
}

static void add(struct queue *queue, double time, struct packet *packet) {
    if (queue->count == queue->space) {
        queue->space = queue->space ? 2 * queue->space : 1024;
        queue->events = space(queue->events, queue->space * sizeof *queue->events);
    }
    struct event event = {time, queue->order++, packet}, *events = queue->events;
    size_t place = queue->count++;
    for (; place > 0 && before(&event, &events[(place - 1) / 2]); place = (place - 1) / 2)
        events[place] = events[(place - 1) / 2];
    events[place] = event;
}

static struct event next_of(struct queue *queue) {
    struct event *events = queue->events, first = events[0], last = events[--queue->count];
    size_t place = 0, count = queue->count;
    for (size_t child; (child = 2 * place + 1) < count; place = child) {
        if (child + 1 < count && before(&events[child + 1], &events[child])) child++;
        if (!before(&events[child], &last)) break;
        events[place] = events[child];
    }
    events[place] = last;
    return first;
}

static int is_due(const struct queue *queue, double time) {
    return queue->count > 0 && queue->events[0].time <= time;
}

/* -- the way of a packet --------------------------------------------------------------------- */
static const int *route_of(const struct packet *packet) {
    return routes[packet->source * node_count + packet->target];
}

/* When a cable begins to send it: as late as it need not wait for bits. */
static double start_on(const struct cable *cable, double first, double last, double wire) {
    double start = last - wire * cable->ns_per_byte;
    return start > first ? start : first;
}

/* When it will be delivered if no cable is busy. */
static double soonest(const struct packet *packet) {
    const int *route = route_of(packet);
    double first = packet->first, last = packet->last;
    for (int hop = packet->hop; hop < route[0]; hop++) {
        const struct cable *cable = &cables[route[1 + hop]];
        double delay = cable->delay > cable->jitter ? cable->delay - cable->jitter : 0;
        first = start_on(cable, first, last, packet->wire) + delay;
        last = first + packet->wire * cable->ns_per_byte;
    }
    return last - offset;
}

static void plan_next(struct packet *packet) {
    const int *route = route_of(packet);
    double alarm = soonest(packet);
    if (alarm > packet->alarm) add(&alarms, packet->alarm = alarm, NULL);
    if (packet->hop < route[0]) /* as early as a delivery, or the alarm might be the sooner */
        alarm = start_on(&cables[route[1 + packet->hop]], packet->first, packet->last,
                         packet->wire) - offset;
    add(&due, alarm, packet);
}

static void detach(struct node *node) {
    if (node->tun >= 0) close(node->tun);
    node->tun = -1;
}

static void deliver(struct packet *packet) {
    struct node *node = &nodes[packet->target];
    if (node->tun >= 0 && write(node->tun, packet->data, packet->size) < 0 && errno == EBADFD)
        detach(node); /* other errors: its interface is down, or out of memory; as a cable would */
    forget(packet);
}

static void cross(struct packet *packet, struct cable *cable, double time) {
    double serial = packet->wire * cable->ns_per_byte;
    int passes = packet->is_ack && packet->hop == 0; /* see relay.py */
    double begins = time > cable->clear || passes ? time : cable->clear;
    if (begins > time && (begins - time) / cable->ns_per_byte + packet->wire > cable->queue) {
        cable->dropped += packet->segments;
        forget(packet);
        return;
    }
    cable->clear = (time > cable->clear ? time : cable->clear) + serial;
    cable->busy += serial;
    cable->bytes += (unsigned long long)packet->wire;
    cable->packets += packet->segments;
    if (cable->loss > 0) {
        double survives = 1;
        for (int segment = 0; segment < packet->segments; segment++) survives *= 1 - cable->loss;
        if (drawn(cable) >= survives) {
            cable->lost += packet->segments;
            forget(packet);
            return;
        }
    }
    double delay = cable->delay;
    if (cable->jitter > 0) delay += cable->jitter * (2 * drawn(cable) - 1);
    packet->first = begins + (delay > 0 ? delay : 0);
    if (packet->first < cable->latest && !passes) packet->first = cable->latest;
    packet->last = packet->first + serial;
    if (packet->last > cable->latest) cable->latest = packet->last;
    packet->hop++;
    plan_next(packet);
}

static void handle_due(double time) {
    while (is_due(&due, time)) {
        struct event event = next_of(&due);
        const int *route = route_of(event.packet);
        if (event.packet->hop == route[0])
            deliver(event.packet);
        else
            cross(event.packet, &cables[route[1 + event.packet->hop]],
                  event.time + (event.packet->hop ? offset : 0));
    }
    while (is_due(&alarms, time)) next_of(&alarms);
}

/* -- nodes ----------------------------------------------------------------------------------- */
static int by_address(const void *a, const void *b) {
    uint32_t left = nodes[*(const int *)a].address, right = nodes[*(const int *)b].address;
    return (left > right) - (left < right);
}

static int *ordered; /* numbers of the nodes, by address */

static int node_at(uint32_t address) {
    int low = 0, high = node_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (nodes[ordered[middle]].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < node_count && nodes[ordered[low]].address == address ? ordered[low] : -1;
}

/* How many frames a packet is, and their bytes: every segment of a long one has the headers. */
static void measure(struct packet *packet) {
    struct virtio_net_hdr header;
    memcpy(&header, packet->data, sizeof header);
    const unsigned char *ip = packet->data + HEADER;
    int size = packet->size - HEADER, headers = 4 * (ip[0] & 15);
    packet->segments = 1;
    packet->is_ack = ip[9] == IPPROTO_TCP && size >= headers + 20 &&
                     size == headers + 4 * (ip[headers + 12] >> 4);
    if ((header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN) == VIRTIO_NET_HDR_GSO_TCPV4 &&
        header.gso_size > 0 && size > headers + 20) {
        headers += 4 * (ip[headers + 12] >> 4);
        if (size > headers) packet->segments = (size - headers - 1) / header.gso_size + 1;
    }
    packet->wire = size + (packet->segments - 1) * headers + packet->segments * ETHERNET;
}

/* Returns whether there may be more. */
static int read_one(int source) {
    static struct packet *draft;
    if (draft == NULL) draft = take(1);
    struct node *node = &nodes[source];
    ssize_t size = read(node->tun, draft->data, LARGEST);
    if (size <= 0) { /* what is neither: its network namespace is gone */
        if (size == 0 || (errno != EAGAIN && errno != EINTR)) detach(node);
        return 0;
    }
    const unsigned char *ip = draft->data + HEADER;
    if (size < HEADER + 20 || ip[0] >> 4 != 4) return 1; /* IPv6 looks for routers */
    uint32_t address;
    memcpy(&address, ip + 16, sizeof address);
    int target = node_at(ntohl(address));
    if (target < 0 || routes[source * node_count + target] == NULL) return 1;
    struct packet *packet = draft;
    if (size <= SMALL) {
        packet = take(0);
        memcpy(packet->data, draft->data, size);
    } else {
        draft = NULL;
    }
    packet->source = source;
    packet->target = target;
    packet->hop = 0;
    packet->size = size;
    measure(packet);
    node->held += size;
    packet->first = packet->last = now();
    packet->alarm = -1e18;
    add(&due, packet->first, packet);
    return 1;
}

static void let_send_long(struct node *node) {
    unsigned offloads = TUN_F_CSUM | (node->is_long ? TUN_F_TSO4 | TUN_F_TSO_ECN : 0);
    if (node->tun >= 0) ioctl(node->tun, TUNSETOFFLOAD, offloads);
}

static const char *join(const char *name, int tun) {
    if (tun < 0) return "error no descriptor came with it\n";
    for (struct node *node = nodes; node < nodes + node_count; node++)
        if (strcmp(node->name, name) == 0) {
            fcntl(tun, F_SETFL, fcntl(tun, F_GETFL) | O_NONBLOCK);
            detach(node);
            node->tun = tun;
            let_send_long(node);
            return "ok\n";
        }
    close(tun);
    return "error the plan has no such node\n";
}

static void accept_agent(int listening) {
    int agent = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (agent >= 0) joining[joining_count++] = agent;
}

/* One message, one descriptor, one answer. Returns whether the agent is done with. */
static int hear_agent(int agent) {
    char text[300], rights[CMSG_SPACE(sizeof(int))];
    struct iovec part = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    message.msg_control = rights;
    message.msg_controllen = sizeof rights;
    ssize_t size = recvmsg(agent, &message, MSG_CMSG_CLOEXEC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (size > 0) {
        int tun = -1;
        struct cmsghdr *control = CMSG_FIRSTHDR(&message);
        if (control != NULL && control->cmsg_type == SCM_RIGHTS)
            memcpy(&tun, CMSG_DATA(control), sizeof tun);
        char name[256] = "";
        text[size] = 0;
        sscanf(text, "join %255s", name);
        const char *answer = join(name, tun);
        (void)!send(agent, answer, strlen(answer), MSG_NOSIGNAL);
    }
    close(agent);
    return 1;
}

/* -- the relay's own latency: how late it wakes for a packet, and for a time ------------------ */
static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static double median(double *values) {
    qsort(values, SAMPLES, sizeof *values, by_value);
    double middle = values[SAMPLES / 2];
    return middle < LATEST ? middle : LATEST;
}

static void pause_for(double ns) {
    struct timespec time = {0, (long)ns};
    ppoll(NULL, 0, &time, NULL);
}

/* Sets both; returns their sum. Deliveries are earlier by the first. */
static double own_latency(void) {
    double packets[SAMPLES], times[SAMPLES], sent;
    int sample = 0, here = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK); /* the stack's time belongs to it */
    socklen_t size = sizeof address;
    if (bind(here, (struct sockaddr *)&address, size) != 0 ||
        getsockname(here, (struct sockaddr *)&address, &size) != 0)
        return 0; /* no loopback */
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
        for (; sample < SAMPLES; sample++) {
            pause_for(3e6);
            sent = now();
            (void)!sendto(here, &sent, sizeof sent, 0, (struct sockaddr *)&address, size);
        }
        _exit(0);
    }
    struct pollfd end = {here, POLLIN, 0};
    for (; child > 0 && sample < SAMPLES; sample++) {
        struct timespec limit = {1, 0};
        ppoll(&end, 1, &limit, NULL);
        if (recv(here, &sent, sizeof sent, MSG_DONTWAIT) != sizeof sent) break;
        (void)!sendto(here, &sent, sizeof sent, 0, (struct sockaddr *)&address, size);
        (void)!recv(here, &sent, sizeof sent, MSG_DONTWAIT); /* as it would be delivered */
        double read_at = now();
        packets[sample] = read_at - sent;
        pause_for(2e5);
        times[sample] = now() - read_at - 2e5;
    }
    close(here);
    if (child > 0) waitpid(child, NULL, 0);
    if (sample < SAMPLES) return 0;
    offset = median(packets);
    for (int kind = 0; kind < WAITS; kind++) lateness[kind] = median(times);
    return offset + lateness[0];
}

/* Waits for a packet, or until an alarm. Long sleeps end later than short ones, so it learns how
 * late each kind does, and begins early. Returns up to when things are due. */
static double wait_for(struct pollfd *ends, int count) {
    if (alarms.count == 0) {
        ppoll(ends, count, NULL, NULL);
        return now();
    }
    double alarm = alarms.events[0].time, wait = alarm - now();
    int kind = 0;
    while (kind < WAITS - 1 && wait > 1e3 * (2 << kind)) kind++;
    double end = alarm - lateness[kind];
    wait = wait > lateness[kind] ? wait - lateness[kind] : 0;
    struct timespec limit = {(time_t)(wait / 1e9), (long)wait % 1000000000};
    int woken = ppoll(ends, count, &limit, NULL);
    double time = now();
    if (woken == 0 && wait > 0) {
        double late = time - end < LATEST ? time - end : LATEST;
        lateness[kind] += (late - lateness[kind]) / 16;
    }
    return woken > 0 || time > alarm ? time : alarm;
}

/* -- what it is told ------------------------------------------------------------------------- */
static void tell_counters(void) {
    printf("%.0f\n", now());
    for (struct cable *cable = cables; cable < cables + cable_count; cable++)
        printf("%.0f %llu %llu %llu %llu\n", cable->busy, cable->bytes, cable->packets,
               cable->dropped, cable->lost);
}

static void plan(int for_nodes, int for_cables, uint64_t seed) {
    if (nodes != NULL || for_nodes <= 0 || for_cables < 0) fail("this is no plan");
    node_count = for_nodes;
    cable_count = for_cables;
    nodes = calloc(node_count, sizeof *nodes);
    ordered = calloc(node_count, sizeof *ordered);
    cables = calloc(cable_count + 1, sizeof *cables);
    routes = calloc((size_t)node_count * node_count, sizeof *routes);
    if (nodes == NULL || ordered == NULL || cables == NULL || routes == NULL) fail("no memory");
    for (int number = 0; number < node_count; number++) {
        ordered[number] = number;
        nodes[number].tun = -1;
    }
    for (int number = 0; number < cable_count; number++)
        cables[number].chance = seed + (uint64_t)number * 0xd1342543de82ef95u;
}

static void add_route(int from, int to, int count, char *rest) {
    int *route = space(NULL, (1 + count) * sizeof *route);
    route[0] = count;
    for (int hop = 1; hop <= count; hop++) {
        route[hop] = strtol(rest, &rest, 10);
        if (route[hop] < 0 || route[hop] >= cable_count) fail("a route of unknown cables");
    }
    routes[from * node_count + to] = route;
}

static void obey(char *line) {
    char name[256], address[16];
    int a, b, count, read = 0;
    unsigned long long seed;
    struct in_addr packed;
    struct cable given;
    if (sscanf(line, "plan %d %d %llu", &a, &b, &seed) == 3) {
        plan(a, b, seed);
    } else if (sscanf(line, "node %d %255s %15s", &a, name, address) == 3 && a >= 0 &&
               a < node_count && inet_aton(address, &packed) != 0) {
        strcpy(nodes[a].name, name);
        nodes[a].address = ntohl(packed.s_addr);
    } else if (sscanf(line, "cable %d %lf %lf %lf %lf %lf", &a, &given.ns_per_byte, &given.delay,
                      &given.jitter, &given.loss, &given.queue) == 6 &&
               a >= 0 && a < cable_count) {
        cables[a].ns_per_byte = given.ns_per_byte;
        cables[a].delay = given.delay;
        cables[a].jitter = given.jitter;
        cables[a].loss = given.loss;
        cables[a].queue = given.queue;
        for (size_t place = 0; place < due.count; place++)
            add(&alarms, due.events[place].time, NULL); /* some may be sooner now */
        if (started) puts("ok");
    } else if (sscanf(line, "route %d %d %d%n", &a, &b, &count, &read) == 3 && a >= 0 && b >= 0 &&
               count >= 0 && a < node_count && b < node_count && !started) {
        add_route(a, b, count, line + read);
    } else if (sscanf(line, "long %d %d", &a, &b) == 2 && a >= 0 && a < node_count) {
        nodes[a].is_long = b;
        let_send_long(&nodes[a]);
        if (started) puts("ok");
    } else if (strcmp(line, "start") == 0 && node_count > 0) {
        qsort(ordered, node_count, sizeof *ordered, by_address);
        double latency = own_latency();
        begun += now();
        started = 1;
        printf("ready %.0f\n", latency);
    } else if (strcmp(line, "counters") == 0) {
        tell_counters();
    } else {
        fprintf(stderr, "relay: not understood: %s\n", line);
        exit(1);
    }
}

static void hear_stdin(void) {
    static char text[65536];
    static size_t filled;
    ssize_t got = read(0, text + filled, sizeof text - 1 - filled);
    if (got <= 0) exit(0); /* who started it is gone, or done */
    filled += got;
    char *line = text, *end;
    for (; (end = memchr(line, '\n', text + filled - line)) != NULL; line = end + 1) {
        *end = 0;
        obey(line);
    }
    fflush(stdout);
    filled -= line - text;
    memmove(text, line, filled);
    if (filled == sizeof text - 1) fail("a line without an end");
}

/* -- the process ----------------------------------------------------------------------------- */
/* Woken soon although ranks keep the cores busy, and without the rights of root. */
static void become_modest(void) {
    struct { /* sched_setattr: a short slice is soon on; ignored by older kernels */
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } slice = {.size = 48, .policy = SCHED_OTHER, .nice = -10, .runtime = 100000};
    if (syscall(SYS_sched_setattr, 0, &slice, 0) != 0) {
        slice.nice = getpriority(PRIO_PROCESS, 0);
        (void)!syscall(SYS_sched_setattr, 0, &slice, 0);
    }
    if (geteuid() == 0 && (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 ||
                           setresuid(NOBODY, NOBODY, NOBODY) != 0))
        fail("root's rights cannot be dropped");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
}

int main(int argc, char **argv) {
    if (argc != 2) fail("usage: relay LISTENING_SOCKET");
    int listening = atoi(argv[1]);
    signal(SIGPIPE, SIG_IGN);
    become_modest();
    begun = now();
    while (!started) hear_stdin();
    struct pollfd *ends = space(NULL, (2 + JOINING + node_count) * sizeof *ends);
    for (;;) {
        int count = 2 + joining_count;
        ends[0] = (struct pollfd){0, POLLIN, 0};
        ends[1] = (struct pollfd){joining_count < JOINING ? listening : -1, POLLIN, 0};
        for (int agent = 0; agent < joining_count; agent++)
            ends[2 + agent] = (struct pollfd){joining[agent], POLLIN, 0};
        struct pollfd *tuns = ends + count;
        for (int node = 0; node < node_count; node++) {
            int waits = nodes[node].held > HELD_MAX;
            tuns[node] = (struct pollfd){waits ? -1 : nodes[node].tun, POLLIN, 0};
        }
        double time = wait_for(ends, count + node_count);
        for (int node = 0; node < node_count; node++)
            if (tuns[node].revents)
                for (int turn = 0; turn < BATCH && read_one(node); turn++) handle_due(now());
        handle_due(time);
        for (int agent = joining_count - 1; agent >= 0; agent--)
            if (ends[2 + agent].revents && hear_agent(joining[agent]))
                joining[agent] = joining[--joining_count];
        if (ends[1].revents) accept_agent(listening);
        if (ends[0].revents) hear_stdin();
    }
}

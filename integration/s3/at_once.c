// Loaded into a server, it has the server send what it has at once: connections are as the socket that listens is.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int listen(int socket, int backlog) {
    int on = 1;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return syscall(SYS_listen, socket, backlog);
}

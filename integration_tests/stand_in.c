/* Not a Qdrant: answers every request on ports 6333 and 6334 with its arguments and environment, one a line.
   It proves the plumbing of containers where the image of the server can't be had. */
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern char **environ;

static int listen_on(int port) {
    int sock = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    return bind(sock, (struct sockaddr *)&address, sizeof address) || listen(sock, 16) ? -1 : sock;
}

int main(int argc, char **argv) {
    char request[4096], body[65536];
    struct pollfd socks[] = {{listen_on(6333), POLLIN, 0}, {listen_on(6334), POLLIN, 0}};
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        poll(socks, 2, -1);
        for (int i = 0; i < 2; i++) {
            if (!(socks[i].revents & POLLIN)) continue;
            int connection = accept(socks[i].fd, NULL, NULL);
            size_t size = 0;
            if (read(connection, request, sizeof request) > 0) {
                for (int a = 1; a < argc; a++) size += snprintf(body + size, sizeof body - size, "%s\n", argv[a]);
                for (char **e = environ; *e; e++) size += snprintf(body + size, sizeof body - size, "%s\n", *e);
                dprintf(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s", size, body);
            }
            close(connection);
        }
    }
}

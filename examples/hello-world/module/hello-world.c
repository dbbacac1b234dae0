// The hello-world guest: one line to each stream, the environment, the arguments, then a file from a mounted volume.
//
// Plain read and write instead of stdio: the module is a few KB, and each line leaves when it is complete, so the log
// keeps the order in which the two streams were written.

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static const char *const path = "/mnt/storage/bacon_ipsum.txt";

static char line[8192];
static size_t used;

static void flush(int stream) {
  size_t done = 0;
  while (done < used) {
    ssize_t count = write(stream, line + done, used - done);
    if (count < 0)
      exit(1);
    done += (size_t)count;
  }
  used = 0;
}

static void put(int stream, const char *text, size_t size) {
  while (size > 0) {
    size_t part = sizeof line - used < size ? sizeof line - used : size;
    memcpy(line + used, text, part);
    used += part, text += part, size -= part;
    if (used == sizeof line)
      flush(stream);
  }
}

static void say(int stream, const char *text) { put(stream, text, strlen(text)); }

static void say_line(int stream, const char *text) {
  say(stream, text);
  say(stream, "\n");
  flush(stream);
}

// One argument between double quotes, with quotes, backslashes and the usual control characters escaped.
static void say_quoted(const char *text) {
  say(1, "\"");
  for (; *text; text++) {
    switch (*text) {
    case '"': say(1, "\\\""); break;
    case '\\': say(1, "\\\\"); break;
    case '\n': say(1, "\\n"); break;
    case '\r': say(1, "\\r"); break;
    case '\t': say(1, "\\t"); break;
    default: put(1, text, 1);
    }
  }
  say(1, "\"");
}

int main(int argc, char **argv) {
  say_line(1, "hello from stdout!");
  say_line(2, "hello from stderr!");
  for (char **variable = environ; *variable; variable++)
    say_line(1, *variable);
  say(1, "Args are: [");
  for (int i = 0; i < argc; i++) {
    if (i > 0)
      say(1, ", ");
    say_quoted(argv[i]);
  }
  say_line(1, "]\n");

  int file = open(path, O_RDONLY);
  if (file < 0) {
    say(2, "cannot open ");
    say(2, path);
    say_line(2, errno == ENOENT ? ": no such file; is the volume mounted?" : ": access refused");
    return 1;
  }
  static char buffer[8192];
  ssize_t count;
  while ((count = read(file, buffer, sizeof buffer)) > 0) {
    put(1, buffer, (size_t)count);
    flush(1);
  }
  if (count < 0) {
    say_line(2, "the file cannot be read to its end");
    return 1;
  }
  return 0;
}

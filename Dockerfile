# One static binary in an empty image: no shell, no libc, nothing to patch but the service itself.
#
# The C library is glibc, linked in. Its resolver reads /etc/hosts and asks DNS without loading anything
# at run time, which is all that finding Redis takes.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# --target, even for the host: the flag then holds for the binary only, and not for the build scripts and
# procedural macros, which have to be loaded by the compiler.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    set -eu; \
    host="$(rustc -vV | sed -n 's/^host: //p')"; \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --locked --target "$host" --bin chat-service; \
    cp "target/$host/dist/chat-service" /chat-service; \
    /chat-service --version

FROM scratch
LABEL org.opencontainers.image.title="chat-service" \
      org.opencontainers.image.description="Real-time chat and notifications over Socket.IO"
COPY --from=build /chat-service /chat-service
# A number, not a name: there is no /etc/passwd to look it up in.
USER 65532:65532
# Listens on all addresses, and does not start without a key, or AUTH_MODE=none said.
ENV ENV=production
EXPOSE 5003
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["/chat-service", "healthcheck"]
ENTRYPOINT ["/chat-service"]

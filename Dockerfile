# The listener. Build: docker build -t 0xpads-listener .
FROM python:3.12-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/listener
ENV PATH=/opt/listener/bin:$PATH
WORKDIR /src
# Dependencies first: they change less often than the code. Wheels only, so that nothing is compiled.
COPY requirements.txt ./
RUN pip install --require-hashes --only-binary=:all: -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY listener listener
RUN pip install --no-deps .

FROM python:3.12-slim-bookworm
ENV PATH=/opt/listener/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Inside a container the health endpoint must be reachable from outside of it.
ENV WEBSOCKET_HOST=0.0.0.0 WEBSOCKET_PORT=8080
COPY --from=build /opt/listener /opt/listener
WORKDIR /app
# No account of this number exists: no shell, no home, nothing to write to.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["listener", "health"]
CMD ["python", "-m", "listener.main"]

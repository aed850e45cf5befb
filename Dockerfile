# opsin on a CPU.
#   docker build -t opsin .
#   docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" opsin train lenet5_digits --out runs/digits
# With extras: docker build --build-arg EXTRAS=export,video -t opsin .

FROM python:3.12-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=""
# torch for CPUs comes from its own index: the one of PyPI brings gigabytes for GPUs.
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir "$(ls /wheels/opsin-*.whl)${EXTRAS:+[$EXTRAS]}"
RUN useradd --create-home opsin && install --directory --owner=opsin /data
# Whoever runs it, with a name or without, may write what torch, matplotlib and opsin keep.
ENV HOME=/tmp USER=opsin
USER opsin
WORKDIR /data
ENTRYPOINT ["opsin"]
CMD ["--help"]

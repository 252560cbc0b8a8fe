# The inspection server. CUDA comes with the torch wheels, so a plain Python base image is enough; the host provides the
# NVIDIA driver and the NVIDIA container toolkit. Any base with Python 3.11 or newer and its venv module works. Name a
# digest to get the same base in every build: --build-arg BASE_IMAGE=python:3.11-slim@sha256:...
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1

# Dependencies first: this layer is by far the largest, and is rebuilt only when they change. pip checks each hash.
# LOCK=image-ray also installs Ray.
WORKDIR /opt/eca-inspect
ARG LOCK=image
COPY lock/${LOCK}.txt lock.txt
RUN python3 -m venv /opt/venv && pip install --require-hashes --requirement lock.txt

# The teachers: the built-in one, and VGG16 for ImageNet, which FETCH_TEACHER=0 leaves out.
COPY weights/teachers teachers
COPY model model
ARG FETCH_TEACHER=1
RUN if [ "$FETCH_TEACHER" = 1 ]; then python -c \
    'from pathlib import Path; from model.store.teachers import fetch_imagenet, save_teacher; save_teacher(fetch_imagenet(), Path("teachers"), "imagenet")' \
    || { echo "To build without the ImageNet teacher: --build-arg FETCH_TEACHER=0" >&2; exit 1; }; fi

COPY pyproject.toml README.md LICENSE ./
COPY service service
RUN pip install --no-deps --no-index --no-build-isolation --editable .

# What the server writes; mount a volume here, or the history ends with the container.
RUN install -d -o 10001 -g 10001 /state
VOLUME /state

ENV INSPECT_HOST=0.0.0.0 \
    INSPECT_PORT=8000 \
    INSPECT_WEIGHTS=/weights \
    INSPECT_TEACHERS=/opt/eca-inspect/teachers \
    INSPECT_STATE=/state \
    MALLOC_ARENA_MAX=2 \
    MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['INSPECT_PORT'] + '/readyz', timeout=4)"]
ENTRYPOINT ["eca-inspect"]
CMD ["serve"]

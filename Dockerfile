# The book in a container, with the versions of requirements.lock:
#   docker build -t wdlg .
#   docker run --rm -p 8000:8000 wdlg            # then open http://localhost:8000
#   docker run --rm wdlg make test
# pip chooses a torch with GPU libraries on Linux. For a smaller image name an index that has torch for CPUs:
#   docker build --build-arg PIP_EXTRA_INDEX_URL=ADDRESS -t wdlg .
FROM python:3.11-slim

# Debian keeps only the newest version of a package, so these cannot be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 reader

USER 1000
WORKDIR /home/reader/wdlg
ARG PIP_EXTRA_INDEX_URL
ENV OMP_NUM_THREADS=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# Before the sources, so that a change of them does not install everything again.
COPY --chown=1000:1000 requirements.lock ./
RUN python -m venv .venv && .venv/bin/python -m pip install --quiet -r requirements.lock

COPY --chown=1000:1000 . .
# As the Makefile does, which then finds its work done.
RUN .venv/bin/python -m pip install --quiet --no-deps -e . \
    && touch .venv/.installed-from-lock \
    && make book

EXPOSE 8000
CMD [".venv/bin/python", "-m", "http.server", "8000", "--directory", "book/_build/html"]

// An attack in the page: a reader draws a digit, the page computes the gradient that a participant would share,
// and recovers the digit from that gradient. No library, no server: it works from a file, and in a notebook.
//
// What is computed here is what the Python library computes, in the same order and under the same names:
// gradient (wdlg.networks.lenet), the closed form (wdlg.attacks.exact and exact_solve), Gauss-Newton steps
// (wdlg.attacks.gauss_newton) and the bound of Cramér and Rao (wdlg.limits). tests/book/test_page_attack.py
// compares the two.
//
// Pictures, activations and weights are Float64Arrays, row by row. A shared gradient is rounded to float32.

(() => {
  "use strict";
  if (window.wdlgAttack) return; // a notebook may show the attack twice

  const TAPS = 5; // of the kernel, along each side
  const PADDING = 2;

  // --- Matrices, row by row ------------------------------------------------------------------------------

  // Nearly all time is spent in these three. Each goes through four rows at once, which saves most of the
  // traffic between memory and processor.

  // A (m, k) times B (k, n), added to C (m, n).
  const addProduct = (C, A, B, m, k, n) => {
    for (let i = 0; i < m; i++) addRows(C, i * n, A, i * k, 1, B, k, n);
    return C;
  };

  // The transpose of A (m, k) times B (m, n), added to C (k, n).
  const addTransposedProduct = (C, A, B, m, k, n) => {
    for (let i = 0; i < k; i++) addRows(C, i * n, A, i, k, B, m, n);
    return C;
  };

  // The rows of B (m, n), each times an entry of A (every `step`th after `at`), added to the row of C at `to`.
  const addRows = (C, to, A, at, step, B, m, n) => {
    let i = 0;
    for (; i + 3 < m; i += 4, at += 4 * step) {
      const a = A[at], b = A[at + step], c = A[at + 2 * step], d = A[at + 3 * step];
      const p = i * n, q = p + n, r = q + n, s = r + n;
      for (let j = 0; j < n; j++) C[to + j] += a * B[p + j] + b * B[q + j] + c * B[r + j] + d * B[s + j];
    }
    for (; i < m; i++, at += step) {
      const a = A[at], p = i * n;
      for (let j = 0; j < n; j++) C[to + j] += a * B[p + j];
    }
  };

  // A (m, n) times the transpose of B (k, n), added to C (m, k).
  const addProductOfRows = (C, A, B, m, n, k) => {
    let i = 0;
    for (; i + 3 < m; i += 4)
      for (let j = 0; j < k; j++) {
        let p = i * n, w = 0, x = 0, y = 0, z = 0;
        for (let q = j * n; q < j * n + n; q++, p++) {
          const b = B[q];
          w += A[p] * b;
          x += A[p + n] * b;
          y += A[p + 2 * n] * b;
          z += A[p + 3 * n] * b;
        }
        C[i * k + j] += w;
        C[(i + 1) * k + j] += x;
        C[(i + 2) * k + j] += y;
        C[(i + 3) * k + j] += z;
      }
    for (; i < m; i++)
      for (let j = 0; j < k; j++) {
        let sum = 0;
        for (let l = 0; l < n; l++) sum += A[i * n + l] * B[j * n + l];
        C[i * k + j] += sum;
      }
    return C;
  };

  const dot = (a, b) => {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
    return sum;
  };
  const norm = (a) => Math.sqrt(dot(a, a));
  const add = (a, factor, b) => {
    for (let i = 0; i < a.length; i++) a[i] += factor * b[i];
    return a;
  };
  const map = (a, of) => Float64Array.from(a, of);
  // A unit for numbers: their root mean square, or 1 where all are zero, as is the gradient of an empty sheet.
  const unitOf = (a) => norm(a) / Math.sqrt(a.length) || 1;

  // L with A = L Lᵀ, in the lower half of A (n, n).
  const cholesky = (A, n) => {
    for (let i = 0; i < n; i++)
      for (let j = 0; j <= i; j++) {
        let sum = A[i * n + j];
        for (let k = 0; k < j; k++) sum -= A[i * n + k] * A[j * n + k];
        A[i * n + j] = i === j ? Math.sqrt(sum) : sum / A[j * n + j];
      }
    return A;
  };

  // Solves L Lᵀ x = b in place.
  const choleskySolve = (L, n, b) => {
    for (let i = 0; i < n; i++) {
      let sum = b[i];
      for (let k = 0; k < i; k++) sum -= L[i * n + k] * b[k];
      b[i] = sum / L[i * n + i];
    }
    for (let i = n - 1; i >= 0; i--) {
      b[i] /= L[i * n + i];
      for (let k = 0; k < i; k++) b[k] -= L[i * n + k] * b[i];
    }
    return b;
  };

  // --- The network: three convolutions with sigmoid, and a linear layer -----------------------------------

  // A convolution as its geometry: which pixel each tap of the kernel meets at each output place.
  const makeLayer = ({ channels, height, width, filters, stride }) => {
    const [down, across] = [height, width].map((size) => Math.ceil(size / stride));
    const places = down * across, pixels = height * width, taps = TAPS * TAPS;
    const met = new Int32Array(taps * places).fill(-1); // -1: the padding
    for (let tap = 0; tap < taps; tap++)
      for (let place = 0; place < places; place++) {
        const row = stride * Math.floor(place / across) + Math.floor(tap / TAPS) - PADDING;
        const column = stride * (place % across) + (tap % TAPS) - PADDING;
        if (row >= 0 && row < height && column >= 0 && column < width)
          met[tap * places + place] = row * width + column;
      }
    return { channels, height, width, filters, stride, places, pixels, taps, met };
  };

  // What the windows see of an input (channels, pixels): (channels * taps, places).
  const patches = (layer, input) => {
    const { channels, pixels, met } = layer;
    const seen = new Float64Array(channels * met.length);
    for (let c = 0; c < channels; c++)
      for (let i = 0; i < met.length; i++)
        if (met[i] >= 0) seen[c * met.length + i] = input[c * pixels + met[i]];
    return seen;
  };

  // The transpose of patches: sums (channels * taps, places) up to (channels, pixels).
  const folded = (layer, seen) => {
    const { channels, pixels, met } = layer;
    const input = new Float64Array(channels * pixels);
    for (let c = 0; c < channels; c++)
      for (let i = 0; i < met.length; i++)
        if (met[i] >= 0) input[c * pixels + met[i]] += seen[c * met.length + i];
    return input;
  };

  // Numbers as they are sent: little-endian float32 in base64.
  const decoded = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return Float64Array.from(new Float32Array(bytes.buffer));
  };

  // The network, from its geometry and its weights: weight and bias of each layer, one after the other.
  const makeNetwork = ({ layers, classes, weights }) => {
    const made = layers.map(makeLayer);
    const last = made.at(-1);
    const features = last.filters * last.places;
    const shapes = [...made.map(({ filters, channels, taps }) => [filters, channels * taps]), [classes, features]];
    const sizes = shapes.flatMap(([rows, columns]) => [rows * columns, rows]);
    const network = { layers: made, classes, features, sizes, entries: sizes.reduce((a, b) => a + b) };
    network.weights = split(network, decoded(weights));
    return network;
  };

  // One long list as a list for each weight and bias, without copying.
  const split = ({ sizes }, list) => {
    let from = 0;
    return sizes.map((size) => list.subarray(from, (from += size)));
  };

  const withBias = (sums, bias, places) => {
    for (let i = 0; i < sums.length; i++) sums[i] += bias[Math.floor(i / places)];
    return sums;
  };

  const rowSums = (values, rows) => {
    const sums = new Float64Array(rows), length = values.length / rows;
    for (let i = 0; i < values.length; i++) sums[Math.floor(i / length)] += values[i];
    return sums;
  };

  // Everything that one pass forward and back computes for a picture and its label.
  const pass = (network, picture, label) => {
    const { layers, classes, features, weights } = network;
    const seen = [], values = [], upstream = [], delta = [];
    let hidden = picture;
    layers.forEach((layer, l) => {
      const { filters, channels, taps, places } = layer;
      seen.push(patches(layer, hidden));
      const sums = addProduct(new Float64Array(filters * places), weights[2 * l], seen[l], filters, channels * taps, places);
      hidden = withBias(sums, weights[2 * l + 1], places).map((z) => 1 / (1 + Math.exp(-z)));
      values.push(hidden);
    });
    const [matrix, bias] = weights.slice(-2);
    const scores = withBias(addProduct(new Float64Array(classes), matrix, hidden, classes, features, 1), bias, 1);
    const largest = Math.max(...scores), powers = scores.map((score) => Math.exp(score - largest));
    const total = powers.reduce((a, b) => a + b), probability = powers.map((power) => power / total);
    const error = probability.map((p, k) => p - (k === label)); // of the cross-entropy, by the scores
    let back = addTransposedProduct(new Float64Array(features), matrix, error, classes, features, 1);
    for (let l = layers.length - 1; l >= 0; l--) {
      const { filters, channels, taps, places } = layers[l];
      upstream[l] = back;
      delta[l] = back.map((u, i) => u * values[l][i] * (1 - values[l][i]));
      const columns = addTransposedProduct(
        new Float64Array(channels * taps * places), weights[2 * l], delta[l], filters, channels * taps, places);
      back = folded(layers[l], columns);
    }
    const state = { seen, values, upstream, delta, probability, error };
    return { ...state, gradient: exactGradient(network, state) };
  };

  // The gradient by all weights, as one list in double precision.
  const exactGradient = (network, state) => {
    const gradient = new Float64Array(network.entries), parts = split(network, gradient);
    network.layers.forEach(({ filters, channels, taps, places }, l) => {
      addProductOfRows(parts[2 * l], state.delta[l], state.seen[l], filters, places, channels * taps);
      parts[2 * l + 1].set(rowSums(state.delta[l], filters));
    });
    const [matrix, bias] = parts.slice(-2);
    addProduct(matrix, state.error, state.values.at(-1), network.classes, 1, network.features);
    bias.set(state.error);
    return gradient;
  };

  // What a participant sends for one picture: rounded to float32.
  const gradientOf = (network, picture, label) => pass(network, picture, label).gradient.map(Math.fround);

  // The gradient with independent normal noise of a level: the length of the noise over that of the gradient.
  // The draw is the same at each level, only larger.
  const withNoise = (gradient, level) => {
    const size = (level * norm(gradient)) / Math.sqrt(gradient.length), normal = normals(1);
    return level ? gradient.map((entry) => Math.fround(entry + size * normal())) : gradient;
  };

  // Normal numbers, the same in every browser (mulberry32, then Box and Muller).
  const normals = (seed) => {
    let state = seed;
    const uniform = () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  };

  // The label: the least entry of the output bias's gradient. Only that of the label is negative.
  const labelOf = (network, gradient) => {
    const bias = split(network, gradient).at(-1);
    return bias.indexOf(Math.min(...bias));
  };

  // --- The closed form, layer by layer from the top -------------------------------------------------------

  const TOLERANCE = 1e-8; // of each layer: well below what float32 leaves of the gradient
  const MOST_ITERATIONS = 1000, MOST_ROUNDS = 4, ROUND = 1e-9;

  // The equations of one layer for its input: forward (what each place sums up to, weighted by trust) and
  // gradient (the gradient of its weights), with a preconditioner: the gradient equations hold pixels of one
  // stride phase each, so their matrix falls into one block for each phase, the same for all channels.
  const equationsOf = (layer, weight, trust, delta) => {
    const { filters, channels, taps, places, pixels, met, stride, width } = layer;
    const inner = channels * taps;
    const apply = (input) => {
      const seen = patches(layer, input);
      const forward = addProduct(new Float64Array(filters * places), weight, seen, filters, inner, places);
      return [
        forward.map((value, i) => trust[i] * value),
        addProductOfRows(new Float64Array(filters * inner), delta, seen, filters, places, inner),
      ];
    };
    const transposed = (forward, gradient) => {
      const columns = new Float64Array(inner * places);
      addTransposedProduct(columns, weight, forward.map((value, i) => trust[i] * value), filters, inner, places);
      addTransposedProduct(columns, gradient, delta, filters, inner, places);
      return folded(layer, columns);
    };

    const squared = addTransposedProduct(
      new Float64Array(inner * places), weight.map((w) => w * w), trust.map((t) => t * t), filters, inner, places);
    const ofChannels = folded(layer, squared), diagonal = new Float64Array(pixels);
    ofChannels.forEach((value, i) => (diagonal[i % pixels] += value / channels));
    const least = Math.max(...diagonal) * 1e-12 + 1e-300;
    const phases = Array.from({ length: stride * stride }, () => []);
    for (let pixel = 0; pixel < pixels; pixel++)
      phases[(Math.floor(pixel / width) % stride) * stride + ((pixel % width) % stride)].push(pixel);
    const blocks = phases.map((phase) => {
      const n = phase.length, matrix = new Float64Array(n * n);
      const number = new Int32Array(pixels).fill(-1);
      phase.forEach((pixel, i) => {
        number[pixel] = i;
        matrix[i * n + i] = Math.max(diagonal[pixel], least);
      });
      for (let tap = 0; tap < taps; tap++) {
        // Where this tap meets pixels of this phase, if anywhere.
        const at = [];
        for (let place = 0; place < places; place++) {
          const pixel = met[tap * places + place];
          if (pixel >= 0 && number[pixel] >= 0) at.push([number[pixel], place]);
        }
        for (let o = 0; o < filters; o++)
          for (const [i, one] of at) {
            const d = delta[o * places + one];
            for (const [j, other] of at) {
              if (j > i) break;
              matrix[i * n + j] += d * delta[o * places + other];
            }
          }
      }
      return cholesky(matrix, n);
    });
    const preconditioned = (slope) => {
      const out = new Float64Array(slope.length);
      for (let c = 0; c < channels; c++)
        phases.forEach((phase, number) => {
          const part = Float64Array.from(phase, (pixel) => slope[c * pixels + pixel]);
          choleskySolve(blocks[number], phase.length, part);
          phase.forEach((pixel, i) => (out[c * pixels + pixel] = part[i]));
        });
      return out;
    };
    return { apply, transposed, preconditioned };
  };

  // Conjugate gradients for least squares, until the slope is `wanted` times as small as at the start.
  // Returns the solution and the number of steps.
  const cgls = ({ apply, transposed, preconditioned }, right, wanted, most = MOST_ITERATIONS) => {
    const left = right.map((part) => part.slice());
    let slope = transposed(...left), direction = preconditioned(slope), size = dot(slope, direction), made = 0;
    const enough = wanted * wanted * size, found = new Float64Array(slope.length);
    for (; made < most && size > enough; made++) {
      const moved = apply(direction);
      const length = size / moved.reduce((sum, part) => sum + dot(part, part), 0);
      add(found, length, direction);
      left.forEach((part, i) => add(part, -length, moved[i]));
      slope = transposed(...left);
      const ahead = preconditioned(slope), next = dot(slope, ahead);
      direction = add(ahead, next / size, direction);
      size = next;
    }
    return [found, made];
  };

  // The input of a layer from its equations; what rounding leaves of them is solved for again.
  const solve = (equations, right) => {
    let found = null, first = 0;
    let left = right;
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const slope = equations.transposed(...left);
      const size = Math.sqrt(dot(slope, equations.preconditioned(slope)));
      if (round === 0) first = size;
      if (!(size > 10 * TOLERANCE * first)) break;
      const [step] = cgls(equations, left, Math.max((TOLERANCE * first) / size, ROUND));
      found = found ? add(found, 1, step) : step;
      const there = equations.apply(found);
      left = right.map((part, i) => part.map((value, j) => value - there[i][j]));
    }
    return found ?? equations.transposed(...right).fill(NaN);
  };

  // The picture in closed form. `progress` is told each layer and waited for, so that the page can show it.
  const closedForm = async (network, gradient, progress = async () => {}) => {
    const { layers, classes, features, weights } = network;
    const parts = split(network, gradient), error = parts.at(-1), [matrix] = weights.slice(-2);
    // The output layer's gradient is error times features: a division gives the features.
    let values = addTransposedProduct(new Float64Array(features), parts.at(-2), error, classes, features, 1);
    values = values.map((value) => value / dot(error, error));
    let upstream = addTransposedProduct(new Float64Array(features), matrix, error, classes, features, 1);
    for (let l = layers.length - 1; l >= 0; l--) {
      await progress(l);
      const layer = layers[l], { filters, channels, taps, places } = layer;
      const weight = weights[2 * l], bias = weights[2 * l + 1], shared = parts[2 * l];
      // Undo the sigmoid. A value that noise has carried out of (0, 1) says nothing: weight 0.
      const held = map(values, (a) => +(a > 0 && a < 1));
      const sums = map(values, (a, i) => (held[i] ? Math.log(a / (1 - a)) : 0));
      const slope = map(values, (a, i) => (held[i] ? a * (1 - a) : 0));
      const delta = upstream.map((u, i) => u * slope[i]);
      const trustUnit = 1 / unitOf(values), unit = 1 / unitOf(shared);
      const trust = slope.map((s) => s * trustUnit);
      const equations = equationsOf(layer, weight, trust, delta.map((d) => d * unit));
      values = solve(equations, [
        sums.map((z, i) => trust[i] * (z - bias[Math.floor(i / places)])),
        shared.map((g) => g * unit),
      ]);
      const columns = new Float64Array(channels * taps * places);
      upstream = folded(layer, addTransposedProduct(columns, weight, delta, filters, channels * taps, places));
    }
    return values;
  };

  // --- Gauss-Newton steps: the picture whose gradient is nearest to the shared one -------------------------

  // How the gradient changes with the picture, and back: J v and Jᵀ u for the Jacobian J of the gradient, both
  // by carrying a change through the pass above (Jᵀ u is how the derivative by the picture changes with the
  // weights, in the direction u).
  const jacobianOf = (network, state) => {
    const { layers, classes, features, weights } = network;
    const change = (picture, direction) => {
      const moved = direction && split(network, direction);
      const seen = [], values = [];
      let hidden = picture;
      layers.forEach((layer, l) => {
        const { filters, channels, taps, places } = layer, inner = channels * taps;
        const sums = new Float64Array(filters * places);
        if (hidden) {
          seen[l] = patches(layer, hidden);
          addProduct(sums, weights[2 * l], seen[l], filters, inner, places);
        }
        if (moved) {
          addProduct(sums, moved[2 * l], state.seen[l], filters, inner, places);
          withBias(sums, moved[2 * l + 1], places);
        }
        hidden = sums.map((z, i) => z * state.values[l][i] * (1 - state.values[l][i]));
        values.push(hidden);
      });
      const matrix = weights.at(-2), scores = new Float64Array(classes);
      addProduct(scores, matrix, hidden, classes, features, 1);
      if (moved) withBias(addProduct(scores, moved.at(-2), state.values.at(-1), classes, features, 1), moved.at(-1), 1);
      const mean = dot(state.probability, scores);
      const error = scores.map((score, k) => state.probability[k] * (score - mean));
      let back = addTransposedProduct(new Float64Array(features), matrix, error, classes, features, 1);
      if (moved) addTransposedProduct(back, moved.at(-2), state.error, classes, features, 1);
      const delta = [];
      for (let l = layers.length - 1; l >= 0; l--) {
        const { filters, channels, taps, places } = layers[l], inner = channels * taps;
        delta[l] = back.map((u, i) => {
          const a = state.values[l][i];
          return u * a * (1 - a) + state.upstream[l][i] * (1 - 2 * a) * values[l][i];
        });
        if (l === 0 && !moved) break;
        const columns = addTransposedProduct(new Float64Array(inner * places), weights[2 * l], delta[l], filters, inner, places);
        if (moved) addTransposedProduct(columns, moved[2 * l], state.delta[l], filters, inner, places);
        back = folded(layers[l], columns);
      }
      return { seen, values, error, delta, back };
    };
    const apply = (picture) => {
      const changed = change(picture, null);
      const out = new Float64Array(network.entries), parts = split(network, out);
      layers.forEach(({ filters, channels, taps, places }, l) => {
        addProductOfRows(parts[2 * l], changed.delta[l], state.seen[l], filters, places, channels * taps);
        addProductOfRows(parts[2 * l], state.delta[l], changed.seen[l], filters, places, channels * taps);
        parts[2 * l + 1].set(rowSums(changed.delta[l], filters));
      });
      addProduct(parts.at(-2), changed.error, state.values.at(-1), classes, 1, features);
      addProduct(parts.at(-2), state.error, changed.values.at(-1), classes, 1, features);
      parts.at(-1).set(changed.error);
      return [out];
    };
    const transposed = (direction) => change(null, direction).back;
    return { apply, transposed };
  };

  const PROBES = 12;

  // A preconditioner: the diagonal of JᵀJ, estimated from what Jᵀ makes of random signs.
  const diagonalOf = (network, { transposed }) => {
    const normal = normals(2), diagonal = new Float64Array(network.layers[0].channels * network.layers[0].pixels);
    for (let probe = 0; probe < PROBES; probe++) {
      const back = transposed(Float64Array.from({ length: network.entries }, () => Math.sign(normal())));
      back.forEach((value, i) => (diagonal[i] += (value * value) / PROBES));
    }
    return (slope) => slope.map((value, i) => value / diagonal[i]);
  };

  const FITTED = 1e-3; // to which the equations of a step are solved
  const MOST_STEPS = 4;

  // From a picture to the one whose gradient fits all entries of the shared one best. A step that does not
  // bring the gradient nearer is not taken; one that brings it as near as the linear model says is the last.
  const fit = async (network, gradient, label, start, progress = async () => {}) => {
    const at = (picture) => {
      const state = pass(network, picture, label);
      const residual = gradient.map((entry, i) => entry - state.gradient[i]);
      return { picture, state, residual, distance: norm(residual) };
    };
    let here = at(map(start, (value) => (value >= 0 ? Math.min(value, 1) : value < 0 ? 0 : 0.5)));
    let preconditioned = null;
    for (let step = 0; step < MOST_STEPS; step++) {
      await progress(step);
      const jacobian = jacobianOf(network, here.state);
      preconditioned ??= diagonalOf(network, jacobian);
      const [move] = cgls({ ...jacobian, preconditioned }, [here.residual], FITTED, 150);
      const [moved] = jacobian.apply(move);
      const foretold = norm(here.residual.map((entry, i) => entry - moved[i]));
      const there = at(add(here.picture.slice(), 1, move));
      if (!(there.distance < here.distance)) break;
      here = there;
      if (there.distance < 1.001 * foretold) break;
    }
    return here.picture;
  };

  // c in MSE >= c level²: no unbiased attack on noise of this level does better (Cramér and Rao). The trace of
  // (JᵀJ)⁻¹ is estimated from random signs z: the mean of zᵀ (JᵀJ)⁻¹ z.
  const boundConstant = async (network, picture, label, probes = 2, progress = async () => {}) => {
    const state = pass(network, picture, label), size = norm(state.gradient), normal = normals(3);
    const jacobian = jacobianOf(network, state);
    jacobian.preconditioned = diagonalOf(network, jacobian);
    let trace = 0;
    for (let probe = 0; probe < probes; probe++) {
      await progress(probe);
      const signs = Float64Array.from(picture, () => Math.sign(normal()));
      trace += dot(signs, inverse(jacobian, signs)) / probes;
    }
    return ((size * size) / network.entries) * (trace / picture.length);
  };

  // (JᵀJ)⁻¹ b by conjugate gradients.
  const inverse = ({ apply, transposed, preconditioned }, b) => {
    const found = new Float64Array(b.length), left = b.slice();
    let direction = preconditioned(left), size = dot(left, direction);
    const enough = 1e-6 * size;
    for (let made = 0; made < 400 && size > enough; made++) {
      const moved = apply(direction), length = size / dot(moved[0], moved[0]);
      add(found, length, direction);
      add(left, -length, transposed(moved[0]));
      const ahead = preconditioned(left), next = dot(left, ahead);
      direction = add(ahead, next / size, direction);
      size = next;
    }
    return found;
  };

  // --- On the page ----------------------------------------------------------------------------------------

  const SIDE = 28;
  const RECOVERED = 0.01; // the mean squared error below which the book calls a picture recovered
  const BRUSH = 1.4; // radius, in pixels of the picture
  const BELOW = [0, 114, 178], ABOVE = [213, 94, 0]; // Okabe and Ito's, for entries below and above zero

  const told = (value) => (value >= 0.001 ? String(Number(value.toPrecision(2))) : value.toExponential(1));
  const spoken = (level) => (level ? `${level} of the gradient's length` : "none");
  const errorOf = (one, other) => one.reduce((sum, value, i) => sum + (value - other[i]) ** 2, 0) / one.length;

  const paint = (canvas, colours) => {
    const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
    image.data.fill(255);
    colours.forEach((colour, i) => image.data.set(colour, 4 * i));
    context.putImageData(image, 0, 0);
  };

  const paintPicture = (canvas, picture) =>
    paint(canvas, [...picture].map((value) => Array(3).fill(255 * Math.min(Math.max(value, 0), 1))));

  // All entries in the order in which they are sent, row by row. Each weight and bias is in a unit of its own,
  // and roots are shown, so that small entries are seen, too.
  const paintGradient = (canvas, network, gradient) =>
    paint(canvas, split(network, gradient).flatMap((part) => {
      const largest = part.reduce((most, entry) => Math.max(most, Math.abs(entry)), Number.MIN_VALUE);
      return [...part].map((entry) => {
        const share = Math.sqrt(Math.abs(entry) / largest), colour = entry < 0 ? BELOW : ABOVE;
        return colour.map((value) => 255 + share * (value - 255));
      });
    }));

  const attach = (box) => {
    const data = JSON.parse(box.querySelector("script[type='application/json']").textContent);
    const network = makeNetwork(data.network);
    const examples = data.examples.map(({ pixels, label, constant }) =>
      ({ label, constant, picture: Float64Array.from(atob(pixels), (letter) => letter.charCodeAt(0) / 255) }));
    const find = (name) => box.querySelector(`[data-part="${name}"]`);
    const [sheet, sent, closed, fitted] = ["sheet", "sent", "closed", "fitted"].map(find);
    const [slider, chosen, status, progress, bound] = ["noise", "label", "status", "progress", "bound"].map(find);
    const buttons = [...box.querySelectorAll("[data-example]")];
    const level = () => data.levels[Number(slider.value)];
    let picture = examples[0].picture.slice(), constant = examples[0].constant, asked = false, turn = 0, waiting = 0;

    const note = (canvas, text) => {
      canvas.parentElement.querySelector("[data-note]").textContent = text;
      canvas.setAttribute("aria-label", `${canvas.dataset.name}${text && `, ${text}`}`);
    };

    const share = () => withNoise(gradientOf(network, picture, Number(chosen.value)), level());

    // What the participant has and sends; what was recovered from another gradient goes.
    const show = () => {
      paintPicture(sheet, picture);
      paintGradient(sent, network, share());
      if (!asked) return;
      [closed, fitted].forEach((canvas) => note(canvas, "…"));
      bound.textContent = "";
    };

    // Takes turns: a run whose gradient has changed meanwhile ends at its next step.
    const recover = async () => {
      const mine = ++turn, label = Number(chosen.value), truth = picture.slice(), noise = level();
      const step = async (text) => {
        progress.textContent = text;
        await new Promise((resolve) => setTimeout(resolve));
        if (mine !== turn) throw step;
      };
      asked = true;
      box.setAttribute("aria-busy", "true");
      try {
        const began = performance.now(), gradient = share(), read = labelOf(network, gradient);
        const first = await closedForm(network, gradient, (l) => step(`Undoing layer ${l + 1} …`));
        paintPicture(closed, first);
        note(closed, `MSE ${told(errorOf(first, truth))}`);
        const last = await fit(network, gradient, read, first, (s) => step(`Fitting, step ${s + 1} …`));
        const error = errorOf(last, truth), seconds = (performance.now() - began) / 1000;
        paintPicture(fitted, last);
        note(fitted, `MSE ${told(error)}`);
        constant ??= await boundConstant(network, truth, label, 2, () => step("Computing the bound …"));
        const least = constant * noise ** 2, from = Math.sqrt(RECOVERED / constant);
        bound.textContent =
          `Bound: ${noise ? `at this noise no unbiased attack has an MSE below about ${told(least)}` : "without noise it is 0"}. ` +
          `For this digit an MSE of ${RECOVERED} is out of reach from a noise of about ${told(from)} on.`;
        status.textContent =
          `Noise: ${spoken(noise)}. The picture is ${error < RECOVERED ? "recovered" : "not recovered"}: MSE ` +
          `${told(errorOf(first, truth))} by the closed form, ${told(error)} after the fit. Label read off the ` +
          `gradient: ${read}, ${read === label ? "right" : "wrong"}. ${seconds.toFixed(1)} s.`;
        // For tests, and for the curious in the console.
        window.wdlgAttack.last = {
          picture: truth, label, read, level: noise, gradient, closed: first, fitted: last, constant, seconds };
      } catch (reason) {
        if (reason !== step) throw reason;
        return;
      }
      progress.textContent = "";
      box.removeAttribute("aria-busy");
    };

    // After the first recovery every change is followed by the next, once the reader pauses.
    const changed = () => {
      show();
      turn++;
      window.wdlgAttack.last = null;
      clearTimeout(waiting);
      if (asked) waiting = setTimeout(recover, 200);
    };

    // The bound of an example comes with it; that of any other digit with its label is computed when asked for.
    const take = (next, example, pressed) => {
      picture = next;
      constant = example?.constant ?? null;
      if (example) chosen.value = example.label;
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === pressed)));
      changed();
    };

    buttons.forEach((button) => button.addEventListener("click", () => {
      const example = examples[Number(button.dataset.example)];
      take(example ? example.picture.slice() : new Float64Array(SIDE * SIDE), example, button);
    }));
    chosen.addEventListener("change", () => take(picture, null, null));
    slider.addEventListener("input", () => {
      slider.setAttribute("aria-valuetext", (find("level").textContent = spoken(level())));
      changed();
    });
    find("recover").addEventListener("click", recover);

    // A round brush with a soft edge, from where the pointer was to where it is.
    let pen = null;
    const place = (event) => {
      const frame = sheet.getBoundingClientRect();
      return [event.clientX - frame.left, event.clientY - frame.top].map((at) => (at / frame.width) * SIDE - 0.5);
    };
    const draw = (event) => {
      const to = place(event), from = pen ?? to, parts = Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
      const next = picture.slice();
      for (let part = 1; part <= parts; part++)
        for (let i = 0; i < next.length; i++) {
          const [x, y] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * part) / parts);
          const far = Math.hypot((i % SIDE) - x, Math.floor(i / SIDE) - y);
          // 256 levels of grey, as a picture has them.
          next[i] = Math.max(next[i], Math.round(255 * Math.min(Math.max(BRUSH + 0.5 - far, 0), 1)) / 255);
        }
      pen = to;
      take(next, null, null);
    };
    sheet.addEventListener("pointerdown", (event) => {
      sheet.setPointerCapture(event.pointerId);
      event.preventDefault();
      pen = null;
      draw(event);
    });
    sheet.addEventListener("pointermove", (event) => sheet.hasPointerCapture(event.pointerId) && draw(event));

    paintPicture(closed, new Float64Array(SIDE * SIDE));
    paintPicture(fitted, new Float64Array(SIDE * SIDE));
    chosen.value = examples[0].label;
    show();
    find("live").hidden = false;
    box.classList.add("wdlg-attack-here");
  };

  window.wdlgAttack = { makeNetwork, gradientOf, withNoise, labelOf, closedForm, fit, boundConstant, attach };
})();

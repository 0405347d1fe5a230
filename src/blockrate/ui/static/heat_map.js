// Blocks by steps, in colours that colour-blind people tell apart too. Columns come by `take`, each of them once.
const STOPS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const RGB = STOPS.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
const [ROW, GAP, EVERY] = [6, 9, 6]; // pixels of a row and between banks; of how many blocks one is named
const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -1e4], End: [0, 1e4] };

const limit = (value, most) => Math.min(most, Math.max(0, value));
const text = (value) => (value && (value < 0.01 || value >= 1e4) ? value.toExponential(2) : `${+value.toPrecision(3)}`);
const label = (name) => (name === "other" ? "other" : name.replace("_block_", " "));
function colour(share) {
  const at = limit(share, 1) * (RGB.length - 1), low = Math.min(Math.floor(at), RGB.length - 2);
  return `rgb(${RGB[low].map((part, k) => Math.round(part + (RGB[low + 1][k] - part) * (at - low)))})`;
}

export default {
  // names of the rows; frozen: some of them; log: the scale of the colours; what: is shown
  props: ["names", "frozen", "log", "what"],
  emits: ["ready"],
  template: `
    <figure class="heat-map">
      <div class="chart-bar">
        <p class="chart-readout" aria-live="polite">{{ told }}</p>
        <div class="heat-legend" aria-hidden="true"><span>{{ range[0] }}</span><i class="heat-ramp"></i><span>{{ range[1] }}</span><i class="heat-frozen"></i><span>frozen</span></div>
      </div>
      <div class="heat-body">
        <div class="heat-names" aria-hidden="true"><span v-for="row in rows.filter((row) => row.named)" :style="{ top: row.top + 3 + 'px' }">{{ row.name }}</span></div>
        <div class="heat-field" :style="{ height: high + 'px' }">
          <canvas ref="map" role="img" tabindex="0" :aria-label="summary" @pointermove="point" @pointerdown="point" @pointerleave="cell = null" @blur="cell = null" @keydown="key"></canvas>
          <i v-for="row in rows.filter((row) => row.first)" class="heat-gap" :style="{ top: row.top - ${GAP} + 'px' }"></i>
          <i v-if="cell" class="heat-mark" :style="mark"></i>
        </div>
      </div>
      <div class="chart-steps" aria-hidden="true"><span v-for="step in ends">{{ step.toLocaleString("en") }}</span></div>
    </figure>`,
  data: () => ({ turn: 0, cell: null }),
  created() { Object.assign(this, { steps: [], columns: [] }); },
  mounted() {
    this.size = new ResizeObserver(this.draw);
    this.size.observe(this.$refs.map);
    this.$el.style.setProperty("--ramp", STOPS.join());
    this.$emit("ready");
  },
  beforeUnmount() { this.size.disconnect(); },
  updated() { this.draw(); },
  computed: {
    rows() {
      let top = -ROW, kind = "";
      return this.names.map((name, k) => {
        const first = k > 0 && name.split("_")[0] !== kind, index = Number(name.split("_").pop()) || 0;
        kind = name.split("_")[0];
        top += ROW + (first ? GAP : 0);
        return { name: label(name), top, first, named: index % EVERY === 0, frozen: this.frozen.includes(name) };
      });
    },
    high() { return this.rows.length ? this.rows.at(-1).top + ROW : 0; },
    ends() { return this.turn, this.steps.length > 1 ? [0, 0.5, 1].map((share) => this.steps[Math.round(share * (this.steps.length - 1))]) : this.steps; },
    domain() {
      const values = (this.turn, this.columns.flat().filter((value) => value > 0));
      let [low, top] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, 0]);
      if (!values.length) return [0, 1];
      if (!this.log) return [0, top];
      [low, top] = [Math.floor(2 * Math.log10(low)) / 2, Math.ceil(2 * Math.log10(top)) / 2]; // ends that stay as values come
      return [10 ** low, 10 ** Math.max(top, low + 0.5)];
    },
    range() { return this.domain.map(text); },
    summary() { return this.turn, `${this.what} by block, ${this.steps.length} columns, from ${this.range.join(" to ")}; arrow keys read the values`; },
    told() {
      if (!this.cell) return "Point at a block for its value";
      const [row, column] = this.cell, value = this.columns[column]?.[row];
      const words = this.rows[row].frozen ? "frozen" : value == null ? "no value" : text(value);
      return `Step ${this.steps[column]?.toLocaleString("en")} · ${this.rows[row].name} · ${words}`;
    },
    mark() {
      const [row, column] = this.cell, wide = 100 / this.columns.length;
      return { top: `${this.rows[row].top}px`, left: `${column * wide}%`, width: `${wide}%` };
    },
  },
  methods: {
    take(name, start, steps, columns) {
      this.steps.splice(start, Infinity, ...steps);
      this.columns.splice(start, Infinity, ...columns);
      if (!start) this.cell = null;
      this.turn += 1;
    },
    point(event) {
      if (!this.columns.length) return;
      const box = event.target.getBoundingClientRect(), y = event.clientY - box.top;
      const row = this.rows.findLastIndex((row) => row.top <= y);
      this.cell = [limit(row, this.rows.length - 1), limit(Math.floor(((event.clientX - box.left) / box.width) * this.columns.length), this.columns.length - 1)];
    },
    key(event) {
      const move = MOVES[event.key], last = [this.rows.length - 1, this.columns.length - 1];
      if (!move || last[1] < 0) return;
      event.preventDefault();
      this.cell = this.cell ? this.cell.map((at, k) => limit(at + move[k], last[k])) : [0, last[1]];
    },
    scale(value) {
      const [low, top] = this.domain;
      return this.log ? Math.log(Math.max(value, low) / low) / Math.log(top / low) : value / top;
    },
    draw() {
      const { map } = this.$refs, fine = devicePixelRatio, wide = Math.round(map.clientWidth * fine), high = Math.round(this.high * fine);
      if (!wide || !high) return;
      Object.assign(map, { width: wide, height: high }); // which clears it: what stays clear shows the hatching behind
      const ink = map.getContext("2d"), edge = (column) => Math.round((column * wide) / this.columns.length);
      this.columns.forEach((values, column) => values.forEach((value, row) => {
        if (value == null || this.rows[row]?.frozen) return;
        ink.fillStyle = colour(this.scale(value));
        const top = Math.round(this.rows[row].top * fine);
        ink.fillRect(edge(column), top, edge(column + 1) - edge(column), Math.round((this.rows[row].top + ROW) * fine) - top);
      }));
    },
  },
};
